"""Pipelines of the three frameworks, each traced in a process of its own.

Adapters report to OpenTelemetry's global provider, which a process can set once.
"""
