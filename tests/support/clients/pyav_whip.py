"""FFmpeg's WHIP muxer publishes a moving picture and a tone, by PyAV. Arguments: endpoint, token, seconds, muxer options as k=v."""

import sys
import time
from fractions import Fraction

import av


def main(url, token, seconds, options):
    with av.open(url, "w", format="whip", options={"authorization": token, **options}) as output:
        video = output.add_stream("libx264", rate=15, options={"preset": "ultrafast", "tune": "zerolatency", "profile": "baseline", "g": "15"})
        video.width, video.height, video.pix_fmt = 320, 180, "yuv420p"
        audio = output.add_stream("libopus", rate=48000, layout="stereo")
        begun = None
        for n in range(int(seconds * 15)):
            frame = av.VideoFrame(320, 180, "yuv420p")
            for plane, value in zip(frame.planes, (n * 5 % 256, 80, 160)):
                plane.update(bytes([value]) * plane.buffer_size)
            frame.pts, frame.time_base = n, Fraction(1, 15)
            output.mux(video.encode(frame))
            sound = av.AudioFrame(format="s16", layout="stereo", samples=3200)
            sound.planes[0].update(bytes(sound.planes[0].buffer_size))
            sound.sample_rate, sound.pts, sound.time_base = 48000, n * 3200, Fraction(1, 48000)
            output.mux(audio.encode(sound))
            begun = begun or pace(None, 0)
            pace(begun, (n + 1) / 15)
            if n == 0:
                print("connected", flush=True)
    print("left", flush=True)


def pace(begun, due):
    """Waits until `due` seconds after `begun`; the muxer sends what it gets at once."""
    now = time.monotonic()
    if begun is not None:
        time.sleep(max(0.0, begun + due - now))
    return now


av.logging.restore_default_callback()
av.logging.set_libav_level(av.logging.DEBUG)
main(sys.argv[1], sys.argv[2], float(sys.argv[3]), dict(word.split("=", 1) for word in sys.argv[4:]))
