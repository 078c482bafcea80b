"""`jepa play`: drive an imagined world in the browser, with the true one beside it.

browser ── actions, buttons ──→ hub.py ── game.py: one frame ──→ session.py: dynamics, decoder, true world, drift
        ←─ pictures, drift ────         (a thread)                 goal.py, record.py, readout.py, ground.py

Needs the extra `play` (starlette, uvicorn, websockets); the session and everything below it do not.
"""
