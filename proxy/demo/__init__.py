"""The demonstration: real processes, a stock A2A client, and an account of what became of every message.

Owns: what `holdfast demo` shows, and an agent program built on the A2A SDK.
Knows nothing of: Holdfast's inside; it uses the command line and the HTTP API like anybody else.

Needs the extra `demo` (a2a-sdk, uvicorn).
"""
