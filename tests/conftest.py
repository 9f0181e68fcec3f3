"""What every test shares.

Hypothesis judges what a property says, never how busy the machine was meanwhile. Every run tries a few examples of each
property, `scripts/test --all` many (`--hypothesis-profile=thorough`).
"""

import signal

from hypothesis import settings

settings.register_profile("thorough", deadline=None, max_examples=300)
settings.register_profile("quick", deadline=None, max_examples=15)
settings.load_profile("quick")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell starts what it puts into the background without an ear for Ctrl-C, and children inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
