"""An RTSP camera from GStreamer's own server: H.264 of a photo with a clock in it (see mjpeg.py).

Run by the system's Python, whose gi reads Debian's GStreamer:

    /usr/bin/python3 rtsp_server.py FRAME.rgb WIDTH HEIGHT RATE PORT

FRAME.rgb holds WIDTH x HEIGHT x 3 bytes. PORT 0 is one that is free. Prints the port when it listens; ends with its
standard input.
"""

import sys
import threading
import time
from pathlib import Path

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer  # noqa: E402

BITS, SQUARE = 24, 12


def with_clock(frame: bytes, width: int) -> bytes:
    number = int(time.monotonic() * 1000) % (1 << BITS)
    black, white = b"\0" * (SQUARE * 3), b"\xff" * (SQUARE * 3)
    row = b"".join(white + black if number >> shift & 1 else black + white for shift in reversed(range(BITS)))
    row += frame[len(row) : width * 3]
    return row * SQUARE + frame[len(row) * SQUARE :]


def main() -> None:
    path, width, height, rate, port = sys.argv[1], *map(int, sys.argv[2:])
    frame = Path(path).read_bytes()
    Gst.init(None)
    server = GstRtspServer.RTSPServer()
    server.set_address("127.0.0.1")
    server.set_service(str(port))
    factory = GstRtspServer.RTSPMediaFactory()
    factory.set_shared(True)
    factory.set_launch(
        "( appsrc name=source is-live=true format=time do-timestamp=true max-buffers=2 leaky-type=downstream "
        f"caps=video/x-raw,format=RGB,width={width},height={height},framerate={rate}/1 "
        "! videoconvert ! video/x-raw,format=I420 "
        f"! x264enc tune=zerolatency speed-preset=ultrafast bitrate=4000 key-int-max={rate} "
        "! rtph264pay name=pay0 pt=96 config-interval=1 )"
    )

    def configure(_: object, media: GstRtspServer.RTSPMedia) -> None:
        source = media.get_element().get_by_name("source")

        def need(element: Gst.Element, _: int) -> None:
            time.sleep(max(0.0, need.due - time.monotonic()))
            need.due = max(need.due + 1 / rate, time.monotonic())
            element.emit("push-buffer", Gst.Buffer.new_wrapped(with_clock(frame, width)))

        need.due = time.monotonic()
        source.connect("need-data", need)

    factory.connect("media-configure", configure)
    server.get_mount_points().add_factory("/camera", factory)
    assert server.attach(None), "cannot listen"
    loop = GLib.MainLoop()
    threading.Thread(target=lambda: (sys.stdin.read(), loop.quit()), daemon=True).start()
    print(server.get_bound_port(), flush=True)
    loop.run()


if __name__ == "__main__":
    main()
