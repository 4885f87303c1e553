"""No picture and no answer stays in the server's memory after it was delivered.

Two loops of gradio's queue each hold the last request that they saw until they see another one.
"""

import json

from conftest import needs
from running import python

REQUESTS = 6
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
# a server with a stub in place of the workers
SERVER = f"""
import base64, contextlib, gc, json, os, subprocess, sys, threading, time
from pathlib import Path
import uvicorn
from transfg.demo.process import Settings
from transfg.demo.server import Address, application, prepare
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

prepare(Path.cwd())
address = Address("127.0.0.1", 0)
taken = address.take()
app = application(Service(Stub(), ["model"]), [], address)
server = uvicorn.Server(uvicorn.Config(app, log_level="error", ws="none"))
taken.listen()
threading.Thread(target=server.run, args=([taken],), daemon=True).start()
here = f"http://127.0.0.1:{{taken.getsockname()[1]}}"
subprocess.run([sys.executable, "-W", "ignore", "-c", sys.argv[1], here], check=True)
time.sleep(1)
gc.collect()
secrets = [(k, word(k), base64.b64encode(word(k).encode()).decode()) for k in range({REQUESTS})]

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


def test_pictures_and_answers_are_forgotten(tmp_path):
    needs("gradio", "uvicorn")
    done = python(tmp_path, ["-W", "ignore", "-c", SERVER, CLIENT])
    assert done.returncode == 0, done.stderr
    kept = json.loads(done.stdout.splitlines()[-1])
    assert len(kept) <= HELD, f"of {REQUESTS} requests, these are kept: {kept}"
