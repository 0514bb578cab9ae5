"""Azure function app: requests go to the receiver, and a timer runs what is due."""

import azure.functions as func

from receiver.scheduled import drain
from receiver.web.asgi import app as receiver

app = func.AsgiFunctionApp(receiver, http_auth_level=func.AuthLevel.ANONYMOUS)


@app.timer_trigger(arg_name="timer", schedule="0 * * * * *")
def every_minute(timer: func.TimerRequest) -> None:  # noqa: ARG001 - the host passes it
    """Run what is due."""
    drain()
