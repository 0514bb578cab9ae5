"""Modal app: a web endpoint and a schedule, in an image with the wheel from `dist`."""

import modal

from receiver import scheduled
from receiver.web.asgi import app as receiver

image = modal.Image.debian_slim(python_version="3.13").add_local_dir("dist", "/dist", copy=True)
image = image.run_commands('pip install "$(ls /dist/*.whl)[postgres]"')
app = modal.App("wavehook", image=image, secrets=[modal.Secret.from_name("wavehook")])


@app.function(max_containers=10)
@modal.asgi_app()
def web() -> object:
    return receiver


@app.function(schedule=modal.Period(minutes=1))
def drain() -> None:
    scheduled.drain()
