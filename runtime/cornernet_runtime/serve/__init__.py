"""Detection over HTTP on Ray Serve: one process takes requests, replicas detect in batches (``cornernet-serve``).

``options`` says how; ``server`` puts it together; ``web`` is the application; ``replica`` and ``deployment`` are what
runs in Ray. The modules that need the extra ``cluster`` import it in their functions.
"""
