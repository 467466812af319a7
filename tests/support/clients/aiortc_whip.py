"""aiortc publishes a test picture and silence by WHIP: POST, a while of media, DELETE.

Arguments: endpoint, token, seconds, and `voice` when there shall be no picture.
"""

import asyncio
import sys
import urllib.request
from urllib.parse import urljoin

from aiortc import AudioStreamTrack, RTCPeerConnection, RTCSessionDescription, VideoStreamTrack


def call(method, url, token, body=None):
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/sdp"}
    return urllib.request.urlopen(urllib.request.Request(url, data=body, headers=headers, method=method), timeout=10)


async def main(url, token, seconds, tracks):
    peer = RTCPeerConnection()
    for track in tracks:
        peer.addTransceiver(track, direction="sendonly")
    connected = asyncio.Event()
    peer.on("connectionstatechange", lambda: peer.connectionState == "connected" and connected.set())
    await peer.setLocalDescription(await peer.createOffer())
    answer = call("POST", url, token, peer.localDescription.sdp.encode())
    session = urljoin(url, answer.headers["Location"])
    await peer.setRemoteDescription(RTCSessionDescription(sdp=answer.read().decode(), type="answer"))
    await asyncio.wait_for(connected.wait(), 15)
    print("connected", flush=True)
    await asyncio.sleep(seconds)
    print("left", call("DELETE", session, token).status, flush=True)
    await peer.close()


tracks = [AudioStreamTrack()] + ([] if sys.argv[4:] == ["voice"] else [VideoStreamTrack()])
asyncio.run(main(sys.argv[1], sys.argv[2], float(sys.argv[3]), tracks))
