"""Fixtures that every test of this folder has."""

from tests.remote.serving import aws_credentials

__all__ = ["aws_credentials"]
