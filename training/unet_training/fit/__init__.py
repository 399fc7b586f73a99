"""The epochs of a training.

loop.py          one Keras ``fit`` per input size, and what can end it early
checkpoint.py    all that a killed training needs, in one file
distribution.py  batches shared among devices
progress.py      what the terminal or a log shows
events.py        TensorBoard's files
interrupt.py     Ctrl-C between two steps
"""
