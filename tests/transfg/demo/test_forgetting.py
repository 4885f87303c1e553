"""No picture and no answer stays in the server's memory after it was delivered.

Two loops of gradio's queue each hold the last request that they saw until they see another one.
"""

import asyncio
import json
from types import SimpleNamespace

from conftest import needs
from running import python

from transfg.demo.forgetting import CHANNELS, Forgetting, Recent

REQUESTS = 6
UNREAD = 50
HELD = 2  # by the two loops
# Each picture and answer holds a word of its own, made at run time, to find it only there.
WORD = 'def word(k):\n    return "-".join(map(str, range(1000 * k, 1000 * k + 300)))\n'
CLIENT = f"""
import base64, sys
from gradio_client import Client
{WORD}
for k in range({REQUESTS}):  # each of another session
    picture = "data:image/png;base64," + base64.b64encode(word(k).encode()).decode()
    answer = Client(sys.argv[1], verbose=False).predict(image=picture, api_name="/predict")
    assert answer["answers"][0]["label"] == word(k)
"""
# it never asks for the answers
ABSENT = f"""
import base64, json, sys, time, urllib.error, urllib.request
{WORD}
def post(k):
    picture = "data:image/png;base64," + base64.b64encode(word(k).encode()).decode()
    body = json.dumps({{"data": [picture, None, None, False]}}).encode()
    head = {{"Content-Type": "application/json"}}
    address = sys.argv[1] + "/gradio_api/call/predict"
    urllib.request.urlopen(urllib.request.Request(address, body, head), timeout=20).close()
for k in range({UNREAD}):
    while True:
        try:
            post(k)
            break
        except urllib.error.HTTPError as error:
            assert error.code == 503, error  # the queue is full
            time.sleep(0.05)
"""
# a server with a stub in place of the workers
SERVER = f"""
import base64, contextlib, gc, json, os, socket, subprocess, sys, threading, time
from pathlib import Path
import uvicorn
from transfg.demo.process import Settings
from transfg.demo import application, connections
from transfg.demo.address import Address
from transfg.demo.service import Service
FACTS = {{"accuracy": {{}}, "data": {{"name": "toy", "classes": 1}}, "backend": "torch"}}
FACTS |= {{"update": 1, "updates": 1, "parameters": 1, "chosen_on": None, "caution": ""}}
MODEL = {{"facts": FACTS, "input": {{"crop": [8, 8], "resize": None}}, "cautions": []}}

{WORD}
class Stub:
    backends, settings, models, stopping = ("torch",), Settings((), 50, 60.0), [MODEL], False
    turn = contextlib.nullcontext
    def ask(self, backend, run, content, pictures):
        return {{"label": content.decode(), "probabilities": [1.0], "patches": None}}

connections.HEAD_SECONDS = 1
application.INTERVAL = float(sys.argv[3])
application.prepare(Path.cwd())
address = Address("127.0.0.1", 0)
taken = address.take()
server = uvicorn.Server(application.configuration(Service(Stub(), ["model"]), [], address))
threading.Thread(target=server.run, args=([taken],), daemon=True).start()
idle = socket.create_connection(taken.getsockname(), timeout=5)
here = f"http://127.0.0.1:{{taken.getsockname()[1]}}"
subprocess.run([sys.executable, "-W", "ignore", "-c", sys.argv[1], here], check=True)
time.sleep(float(sys.argv[2]))
assert idle.recv(9) == b"", "the demo has limits of connections (test_connections.py)"
gc.collect()
secrets = [(k, word(k), base64.b64encode(word(k).encode()).decode()) for k in range({UNREAD})]

def texts():
    for thing in gc.get_objects():
        if isinstance(thing, (dict, list)):
            values = thing.values() if isinstance(thing, dict) else thing
            yield from (value for value in values if type(value) is str and len(value) > 900)

held = list(texts())
print(json.dumps([k for k, *words in secrets if any(w in t for w in words for t in held)]))
sys.stdout.flush()
os._exit(0)
"""


def kept(tmp_path, client, seconds, interval):
    """The requests of which something is in memory, some seconds after the client's end."""
    needs("gradio", "uvicorn")
    done = python(tmp_path, ["-W", "ignore", "-c", SERVER, client, str(seconds), str(interval)])
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_pictures_and_answers_are_forgotten(tmp_path):
    held = kept(tmp_path, CLIENT, 1, 600)
    assert len(held) <= HELD, f"of {REQUESTS} requests, these are kept: {held}"


def test_answers_that_nobody_reads_are_forgotten(tmp_path):
    held = kept(tmp_path, ABSENT, 3, 0.5)
    assert len(held) <= HELD, f"of {UNREAD} requests, these are kept: {held}"


def test_a_sweep_keeps_what_is_still_waited_for():
    """Two sweeps drop an unread answer, but not the channel of an event that gradio works on."""
    answer, estimate = (SimpleNamespace(msg=m) for m in ("process_completed", "estimation"))
    held = {"gone": [answer], "busy": [answer], "waiting": [estimate], "late": []}
    queue = SimpleNamespace(event_ids_to_events={"b": SimpleNamespace(session_hash="busy")})
    queue.pending_event_ids_session = {"gone": {"a"}, "busy": {"b"}, "unknown": {"c"}}
    sessions = SimpleNamespace(session_data={})
    forgetting = Forgetting(SimpleNamespace(_queue=queue, state_holder=sessions))
    channels = queue.pending_messages_per_session
    for session, messages in held.items():
        channels[session] = asyncio.Queue()
        for message in messages:
            channels[session].put_nowait(message)
    asyncio.run(forgetting.sweep())
    sizes = {session: channels[session].qsize() for session in list(channels)}
    assert sizes == {session: len(messages) for session, messages in held.items()}
    channels["late"].put_nowait(answer)
    asyncio.run(forgetting.sweep())
    assert {s: c.qsize() for s, c in channels.items()} == {"busy": 0, "waiting": 1, "late": 1}
    assert queue.pending_event_ids_session == {"busy": {"b"}}


def test_the_channels_that_were_used_last_stay():
    channels = Recent()
    for number in range(CHANNELS):
        channels[str(number)] = number
    assert channels["0"] == 0
    channels["new"] = 1
    assert len(channels) == CHANNELS and "0" in channels and "1" not in channels
