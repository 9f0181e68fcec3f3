"""Holdfast: an A2A reverse proxy with liveness gating."""

__version__ = "0.1.0"
