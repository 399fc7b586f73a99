"""The live view: camera in, picture with its mask out, never behind life.

source.py    what the user named (a camera's number, a device, a file, an address) -> frames, through OpenCV
camera.py    a thread that keeps the newest frame, and finds a lost camera again
loop.py      capture, inference and display, each at its own pace
smooth.py    probabilities that do not flicker
record.py    what is shown -> a video file of constant frame rate
view.py      a window, a web page or nothing     window.py  web.py
picture.py   a frame with its mask: overlay, cut-out, blur
"""
