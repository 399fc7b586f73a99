"""Networks side by side, each trained, exported, proven and timed by the commands that users type.

points.py   which networks
steps.py    the commands, and what they write
result.py   their metrics put together, and as a table
plot.py     accuracy against what it costs
"""
