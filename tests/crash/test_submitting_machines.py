"""Who submits, who receives and who awaits: machines of their own, on one PostgreSQL."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

from receiver.event import Origin
from submitter import WaveSpeed
from submitter.settings import SubmitSettings
from submitter.simulator import Faults, Simulator
from tests.crash.fleet import SEAL_KEY, Fleet
from tests.crash.receiving import PATIENCE
from tests.support.servers import free_port

MODEL = "kwaivgi/kling-v2.1-i2v-standard"


async def test_results_are_found_wherever_they_are_awaited(fleet: Fleet, tmp_path: Path) -> None:
    """F28, F29: a webhook to one process ends the waits of four others, and nobody polls."""
    async with Simulator(speed=100.0) as sim:
        public = f"http://127.0.0.1:{free_port()}"
        more = {
            "WAVESPEED_BASE_URL": sim.url,
            "WAVESPEED_API_KEY": "any",
            "WAVEHOOK_PUBLIC_URL": public,
            "WAVEHOOK_RECONCILE": "off",
        }
        port, secret = public.rpartition(":")[2], sim.secret
        listens = {"WAVEHOOK_PORT": port, "WAVEHOOK_WAVESPEED_SECRETS": secret}
        await (await fleet.begin("serve", more={**more, **listens})).started()
        task = ("-i", "prompt=waves", "-i", f"image={sim.first_frame}")
        rows = [json.dumps({"prompt": f"{n}", "image": sim.first_frame}) for n in range(3)]
        (tmp_path / "rows.jsonl").write_text("\n".join(rows))
        settings = SubmitSettings(
            "any",
            sim.url,
            public_url=public,
            seal_keys=(SEAL_KEY,),
            database=fleet.url,
            database_schema=fleet.schema,
        )

        [submitted] = await fleet.run("submit", MODEL, *task, "--context", '{"user": 7}', more=more)
        async with WaveSpeed(settings=settings) as wave:
            ran, waited, [done], batch = await asyncio.gather(
                wave.run(MODEL, prompt="dusk", image=sim.first_frame),
                fleet.run("wait", submitted["task_id"], more=more),
                fleet.run("submit", MODEL, *task, "--wait", more=more),
                fleet.run(
                    "batch", "rows.jsonl", "--model", MODEL, "--out", "done.jsonl", more=more
                ),
            )
        assert [ran.status, waited[0]["status"], done["status"]] == ["completed"] * 3
        assert batch[0]["completed"] == 3
        assert (sim.calls["submit"], sim.calls["result"], sim.calls["history"]) == (6, 0, 0)

        sim.set_faults(Faults.parse("drop"))
        brief = {**more, "WAVEHOOK_OVERDUE": "1s"}
        [lost] = await fleet.run("submit", MODEL, *task, more=brief)
        async with asyncio.timeout(PATIENCE):
            while lost["task_id"] not in (await fleet.run("reconcile", more=brief))[0]["tasks"]:
                pass

        async with fleet.store() as store:
            stored = {listed.event.subject: listed.event for listed in await store.events()}
        assert stored.keys() == {task.id for task in sim.tasks}
        assert len(stored) == 7
        assert stored[submitted["task_id"]].context == {"user": 7}
        assert stored[lost["task_id"]].origin is Origin.RECONCILE
