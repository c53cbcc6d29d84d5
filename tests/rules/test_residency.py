"""Residency is decided by a tree of regions, and every doubt is a no."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rerank_plugins.errors import PolicyError
from rerank_plugins.rules.residency import INSIDE, Audit, Destination, Label, Permit, Policy

REGIONS = (
    "eu",
    "eea",
    "us",
    "de",
    "fr",
    "gb",
    "ch",
    "on-prem",
    "eu-central-1",
    "eu-west-2",
    "acme",
)
_EU = "at be bg cy cz de dk ee es fi fr gr hr hu ie it lt lu lv mt nl pl pt ro se si sk"
EU = set(_EU.split())
EEA = EU | {"is", "li", "no"}
CENTRES = [one for one in INSIDE if len(one) > 3]
regions = st.sampled_from(REGIONS)
proofs = st.sampled_from(["url", "attested", "unknown"])
destinations = st.builds(
    Destination, st.just("https://a.example:443"), st.lists(regions, max_size=2).map(tuple), proofs
)
policies = st.builds(
    Policy,
    st.one_of(st.none(), st.lists(regions, min_size=1, max_size=3).map(tuple)),
    unlabelled=st.sampled_from(["allow", "deny"]),
    inside=st.sampled_from([{}, {"acme": "de"}, {"on-prem": "eu"}]),
)
labels = st.one_of(
    st.none(),
    regions,
    st.lists(regions, max_size=3),
    st.sampled_from([7, b"eu", ["eu", 3], "", "mars"]),
)


@pytest.mark.parametrize(
    ("centre", "inside"),
    [("eu-central-1", True), ("eu-west-3", True), ("eu-west-2", False), ("eu-central-2", False)],
)
def test_a_data_centre_is_in_the_eu_by_its_place_and_not_by_its_name(centre, inside):
    """London and Zurich have names that start with eu and lie outside the EU."""
    assert Policy().contains("eu", centre) is inside


def test_names_are_compared_without_case_or_spaces():
    """A region is the same region in capitals."""
    policy = Policy((" EU ",))
    assert policy.verdict(Destination("https://a:443", ("DE",), "attested")).allowed


def test_an_unknown_region_never_passes_a_restricted_policy():
    """Whatever a policy allows, a destination without proof is outside it."""
    for region in (*INSIDE, "on-prem"):
        policy = Policy((region,))
        assert not policy.verdict(Destination("https://a:443")).allowed
        assert not policy.verdict(Destination("https://a:443", (region,), "unknown")).allowed


def test_without_a_policy_every_destination_is_allowed():
    """No regions means no restriction."""
    assert Policy().verdict(Destination("https://a:443")).allowed


def test_a_label_narrows_even_an_unrestricted_policy():
    """A document that says eu stays out of the US and of unknown places."""
    policy = Policy()
    label = policy.label({"residency": "eu"})
    assert label is not None
    assert not policy.verdict(Destination("https://a:443", ("us",), "url"), [label]).allowed
    assert not policy.verdict(Destination("https://a:443"), [label]).allowed
    assert policy.verdict(Destination("https://a:443", ("fr",), "url"), [label]).allowed


@pytest.mark.parametrize("value", [7, b"eu", ["eu", 3], [""], "", {"eu": 1}, object()])
def test_a_label_that_cannot_be_read_keeps_the_document_local(value):
    """Garbage in a residency label is a no for every destination."""
    policy = Policy()
    label = policy.label({"residency": value})
    assert label is not None
    for region in INSIDE:
        assert not policy.verdict(Destination("https://a:443", (region,), "url"), [label]).allowed


def test_unlabelled_documents_stay_when_the_policy_says_so():
    """With unlabelled = deny only labelled documents may leave."""
    policy = Policy(("eu",), unlabelled="deny")
    label = policy.label({})
    assert label is not None
    assert not policy.verdict(Destination("https://a:443", ("de",), "url"), [label]).allowed


@pytest.mark.parametrize(
    "wrong",
    [
        {"regions": ()},
        {"regions": "eu"},
        {"regions": ("unknown",)},
        {"inside": {"us": "eu"}},
        {"inside": {"cn": "eu"}},
        {"inside": {"eu-west-2": "eu"}},
        {"inside": {"unknown": "eu"}},
        {"inside": {"global": "eu"}},
        {"inside": {"a-site": "b-site", "b-site": "a-site"}},
        {"inside": {"ap-southeast-3": "eu"}},
        {"inside": {" AP-Southeast-3 ": "eu"}},
        {"inside": {"asia-southeast2": "eu"}},
        {"inside": {"indonesiacentral": "eu"}},
        {"inside": {"ap-southeast-99": "eu"}},
        {"inside": {"asia-north7": "eu"}},
        {"inside": {"us-iso-east-1": "eu"}},
        {"inside": {"asia": "eu"}},
        {"inside": {"emea": "eu"}},
    ],
)
def test_a_policy_that_can_never_hold_or_moves_the_map_is_refused(wrong):
    """Countries stay where they are, circles and empty policies are refused with a reason."""
    with pytest.raises(PolicyError):
        Policy(**wrong)


@given(policies, destinations, labels, labels)
def test_documents_only_ever_narrow(policy, destination, first, second):
    """Adding a document never turns a no into a yes."""
    found = [policy.label({"residency": one}) for one in (first, second)]
    some = [one for one in found[:1] if one is not None]
    more = [one for one in found if one is not None]
    if policy.verdict(destination, more).allowed:
        assert policy.verdict(destination, some).allowed
        assert policy.verdict(destination).allowed


@given(policies, destinations, labels)
def test_a_yes_means_every_party_contains_the_destination(policy, destination, value):
    """Allowed text lies inside a region of the policy and inside one of the label, proven."""
    label = policy.label({"residency": value})
    if not policy.verdict(destination, [label] if label else []).allowed:
        return
    for named in (policy.regions, label.regions if label else None):
        if named is not None:
            assert destination.proof != "unknown"
            assert any(policy.contains(a, b) for a in named for b in destination.regions)


@given(regions, regions, regions)
def test_containment_is_transitive_and_antisymmetric(a, b, c):
    """The regions form a tree."""
    policy = Policy(inside={"acme": "de", "on-prem": "eu"})
    assert policy.contains(a, a)
    if policy.contains(a, b) and policy.contains(b, c):
        assert policy.contains(a, c)
    if policy.contains(a, b) and policy.contains(b, a):
        assert a == b


def test_an_audit_record_holds_hashes_and_counts_and_no_text():
    """What left can be checked by hash; the text itself is nowhere in the record."""
    seen: list[Audit] = []
    permit = Permit(Policy(("eu",)), (Label(("de",), "labelled de"),), "r1", seen.append)
    destination = Destination("https://a:443", ("de",), "url")
    permit.audit(permit.verdict(destination), destination, "secret query", ["secret passage"])
    (record,) = seen
    assert record.allowed
    assert (record.texts, record.text_bytes) == (1, 26)
    assert len(record.texts_sha256[0]) == 64
    assert "secret" not in repr(record)


@pytest.mark.parametrize("region", sorted(set(INSIDE) - {"eu", "eea"}))
def test_every_region_of_the_map_is_a_country_or_lies_in_one(region):
    """A data centre stands in one country, and the map says in which."""
    policy = Policy()
    countries = [
        one
        for one in {*INSIDE, *INSIDE.values()}
        if len(one) == 2 and one != "eu" and policy.contains(one, region)
    ]
    assert len(countries) == 1
    assert policy.contains("eea", region) is (countries[0] in EEA)


@given(st.sampled_from(CENTRES), st.sampled_from(sorted({*INSIDE.values(), "on-prem", "acme"})))
def test_nobody_moves_a_data_centre(centre, above):
    """A name of one's own can say what the map says, and nothing against it."""
    if INSIDE[centre] == above:
        assert Policy(inside={centre: above}).contains(above, centre)
        return
    with pytest.raises(PolicyError, match="stay where they are"):
        Policy(inside={centre.upper(): above})


@pytest.mark.parametrize(
    ("centre", "country"),
    [
        ("ap-southeast-3", "id"),
        ("asia-southeast2", "id"),
        ("indonesiacentral", "id"),
        ("europe-west2", "gb"),
        ("europe-west6", "ch"),
        ("europe-west3", "de"),
        ("uksouth", "gb"),
        ("westeurope", "nl"),
        ("norwayeast", "no"),
        ("eusc-de-east-1", "de"),
        ("il-central-1", "il"),
        ("me-central2", "sa"),
        ("mx-central-1", "mx"),
    ],
)
def test_known_data_centres_stand_where_they_are(centre, country):
    """Spot checks of the three large clouds."""
    assert INSIDE[centre] == country


def test_names_of_ones_own_are_fine():
    """As long as they do not look like a cloud's region."""
    own = {"acme-frankfurt": "de", "eu-site-1": "eu", "on-prem": "fr", "dc-east-1": "us"}
    assert Policy(inside=own).contains("eea", "acme-frankfurt")
