"""A hundred containers at once, on the default bridge, made and removed eight at a time."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from support.engines import Engine
from support.raw import ask


def test_a_hundred_run_at_once(havred: Engine) -> None:
    def begin(number: int) -> int:
        body = {"Image": "busybox", "Cmd": ["sleep", "1000"]}
        made = ask(havred.socket, "POST", f"/containers/create?name=many{number}", body)
        assert made.status == 201, made.body
        return ask(havred.socket, "POST", f"/containers/many{number}/start").status

    def end(number: int) -> int:
        return ask(havred.socket, "DELETE", f"/containers/many{number}?force=1").status

    with ThreadPoolExecutor(8) as clients:
        assert set(clients.map(begin, range(100))) == {204}
        running = ask(havred.socket, "GET", "/containers/json").json
        assert len([each for each in running if each["Names"][0].startswith("/many")]) == 100
        addresses = {each["NetworkSettings"]["Networks"]["bridge"]["IPAddress"] for each in running}
        assert len(addresses) == len(running)
        assert havred.out("exec", "many99", "hostname", "-i") in addresses
        assert set(clients.map(end, range(100))) == {204}
