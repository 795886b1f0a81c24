"""DNS messages against dnspython, and names on networks by value."""

from __future__ import annotations

import asyncio
import socket
from ipaddress import ip_address

import dns.flags
import dns.message
import dns.name
import dns.rdatatype
import dns.reversename
import pytest
from hypothesis import given
from hypothesis import strategies as st

from havre.dataplane import dnswire
from havre.dataplane.nameserver import NameServer, Quota, Sockets, Upstream
from havre.dataplane.zones import View, Zone, parse_links


def _question(name: str, type: str, **more: object) -> dnswire.Question:
    query = dns.message.make_query(name, type, **more)  # type: ignore[arg-type]
    question = dnswire.parse_question(query.to_wire())
    assert question is not None
    assert question.id == query.id
    return question


class TestMessages:
    def test_addresses_answer_the_question_as_it_was_asked(self) -> None:
        question = _question("Web.Front.", "A")
        both = [ip_address("10.0.0.2"), ip_address("fd00::2"), ip_address("10.0.0.3")]
        read = dns.message.from_wire(dnswire.render_addresses(question, both))
        assert (question.name, read.id, read.rcode()) == ("web.front", question.id, 0)
        assert read.flags & dns.flags.RA
        assert read.flags & dns.flags.RD
        assert str(read.question[0].name) == "Web.Front."
        assert {str(record) for record in read.answer[0]} == {"10.0.0.2", "10.0.0.3"}
        six = dns.message.from_wire(dnswire.render_addresses(_question("web", "AAAA"), both))
        assert [str(record) for record in six.answer[0]] == ["fd00::2"]
        assert dns.message.from_wire(dnswire.render_addresses(_question("web", "AAAA"), both[:1])).answer == []

    def test_an_answer_too_long_for_udp_says_so(self) -> None:
        many = [ip_address(f"10.0.0.{n}") for n in range(1, 60)]
        plain, large = _question("web", "A"), _question("web", "A", use_edns=0, payload=4096)
        cut = dns.message.from_wire(dnswire.fit(plain, dnswire.render_addresses(plain, many)))
        assert cut.flags & dns.flags.TC
        assert cut.answer == []
        whole = dns.message.from_wire(dnswire.fit(large, dnswire.render_addresses(large, many)))
        assert len(whole.answer[0]) == 59

    @pytest.mark.parametrize("address", ["10.1.2.3", "fd00::12:3"])
    def test_names_of_addresses(self, address: str) -> None:
        question = _question(dns.reversename.from_address(address).to_text(), "PTR")
        text = dnswire.reversed_address(question.name)
        assert text is not None
        assert ip_address(text) == ip_address(address)
        read = dns.message.from_wire(dnswire.render_name(question, "web.front"))
        assert str(read.answer[0][0]) == "web.front."

    def test_an_answer_is_known_by_its_id_and_question(self) -> None:
        query = dns.message.make_query("web.example", "A", id=7)
        question = dnswire.parse_question(query.to_wire())
        assert question is not None
        reply = dns.message.make_response(query).to_wire()
        assert dnswire.answers(reply, 7, question)
        assert not dnswire.answers(reply, 8, question)
        assert not dnswire.answers(query.to_wire(), 7, question)
        other = dns.message.make_response(dns.message.make_query("bad.example", "A", id=7)).to_wire()
        assert not dnswire.answers(other, 7, question)

    @given(st.binary(max_size=80))
    def test_any_bytes_are_a_question_or_none(self, data: bytes) -> None:
        question = dnswire.parse_question(data)
        if question is not None:
            assert dnswire.parse_question(dnswire.render_code(question)) is None


class TestNames:
    def test_aliases_are_shared_and_names_go_with_their_endpoint(self) -> None:
        front, back = Zone("front"), Zone("back")
        front.add("e1", ["web1", "Web"], [ip_address("10.0.0.2")])
        front.add("e2", ["web2", "web"], [ip_address("10.0.0.3"), ip_address("fd00::3")])
        back.add("e3", ["db"], [ip_address("10.1.0.2")])
        view = View([front, back], {"front": parse_links(["/web1:Cache", "web2"])})
        assert {str(address) for address in view.resolve("web") or []} == {"10.0.0.2", "10.0.0.3", "fd00::3"}
        assert view.resolve("db.back") == view.resolve("db") == [ip_address("10.1.0.2")]
        assert view.resolve("db.front") is None
        assert view.resolve("cache") == [ip_address("10.0.0.2")]
        assert view.name_of("fd00::3") == "web2.front"
        assert view.name_of("nonsense") is None
        front.remove("e2")
        assert view.resolve("web") == [ip_address("10.0.0.2")]
        assert view.resolve("web2") is None
        assert view.name_of("10.0.0.3") is None

    def test_what_is_not_ours_is_passed_on_or_fails(self) -> None:
        zone = Zone("front")
        zone.add("e1", ["web"], [ip_address("10.0.0.2")])
        server = NameServer(None, View([zone]), Upstream())  # type: ignore[arg-type]
        for name, type in (("example.org", "A"), ("x.y", "TXT"), ("1.0.0.10.in-addr.arpa", "PTR")):
            _, refused = server.answer(dns.message.make_query(name, type).to_wire())
            assert refused is not None
            assert dns.message.from_wire(refused).rcode() == 2
        _, own = server.answer(dns.message.make_query("web", "MX").to_wire())
        assert own is not None
        assert dns.message.from_wire(own).rcode() == 0
        server.upstream = Upstream(("192.0.2.1",))
        assert server.answer(dns.message.make_query("example.org", "A").to_wire())[1] is None
        assert server.answer(b"nonsense") == (None, None)


def test_floods_share_a_part_of_the_loop() -> None:
    quota, now, worked = Quota(), 0.0, 0.0
    while now < 10:
        worked += 0.001
        now += 0.001 + quota.rest(now, now + 0.001)
    assert 10 / 8 < worked < 10 / 8 + 0.3  # an eighth, and the burst at its beginning


def test_a_burst_of_questions_is_answered_without_rest() -> None:
    quota, now = Quota(), 10.0
    for _ in range(240):
        assert quota.rest(now, now + 0.001) == 0
        now += 0.001


def test_questions_in_one_stream_let_others_run() -> None:
    class Counting(NameServer):
        answered = since_others = most = 0

        def answer(self, message: bytes) -> tuple[dnswire.Question | None, bytes | None]:
            self.answered += 1
            self.since_others += 1
            self.most = max(self.most, self.since_others)
            return super().answer(message)

    async def work() -> None:
        stream = socket.create_server(("127.0.0.1", 0))
        address = stream.getsockname()
        server = await Counting.serve(Sockets(socket.socket(type=socket.SOCK_DGRAM), stream), View([]), Upstream())
        query = dns.message.make_query("web", "A").to_wire()
        _, client = await asyncio.open_connection(*address)
        client.write((len(query).to_bytes(2) + query) * 500)
        while server.answered < 100:
            server.since_others = 0
            await asyncio.sleep(0)
        assert server.most == 1
        client.close()
        server.close()

    asyncio.run(asyncio.wait_for(work(), 20))
