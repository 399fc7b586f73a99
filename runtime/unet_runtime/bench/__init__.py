"""unet-bench's library: models x engines x threads on this machine.

``plan`` lists what is run, ``children`` and ``worker`` run it in processes of its own, ``measure`` takes turns and
summarises, ``benchmark`` does all of it, ``report`` (with ``advice`` and ``machine``) and ``plot`` present it.
"""
