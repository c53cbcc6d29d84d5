"""Spending less: plans for a time budget, and exits that are fitted, certified and audited."""
