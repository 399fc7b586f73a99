"""unet-bench's library: models x engines x threads on this machine.

``plan`` says what is run, ``children`` and ``worker`` run it in processes of their own, ``measure`` takes turns and
sums up, ``benchmark`` holds the way together, ``report`` (with ``advice`` and ``machine``) says it, ``plot`` draws it.
"""
