"""What every test shares: Hypothesis judges what a property says, never how busy the machine was meanwhile."""

from hypothesis import settings

settings.register_profile("holdfast", deadline=None)
settings.load_profile("holdfast")
