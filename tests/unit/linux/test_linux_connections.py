"""Whose connections count as served."""

from havre.linux.connections import served

HEAD = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid\n"
LISTEN = "   0: 00000000:0050 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0\n"
FROM_OUTSIDE = "   1: 0500A8C0:0050 0600A8C0:B1F2 {state} 00000000:00000000 00:00000000 00000000     0\n"
TO_OUTSIDE = "   2: 0500A8C0:B0B0 0600A8C0:1538 01 00000000:00000000 00:00000000 00000000     0\n"
OWN_CHECK = "   3: 0100007F:0050 0100007F:C002 01 00000000:00000000 00:00000000 00000000     0\n"
LISTEN6 = "   0: " + "0" * 32 + ":0050 " + "0" * 32 + ":0000 0A 0:0 00:0 0 0\n"
MAPPED = "   1: 0000000000000000FFFF00000500A8C0:0050 0000000000000000FFFF00000600A8C0:B1F2 01 0:0 00:0 0 0\n"


def test_only_open_connections_from_elsewhere_to_listened_ports_count() -> None:
    assert served([HEAD + LISTEN + FROM_OUTSIDE.format(state="01"), HEAD]) == 1
    assert served([HEAD + LISTEN + FROM_OUTSIDE.format(state="06"), HEAD]) == 0, "TIME_WAIT: all is said"
    assert served([HEAD + FROM_OUTSIDE.format(state="01"), HEAD]) == 0, "nobody listens"
    assert served([HEAD + LISTEN + TO_OUTSIDE + OWN_CHECK, HEAD]) == 0
    assert served([HEAD, HEAD + LISTEN6 + MAPPED]) == 1
    assert served([HEAD + FROM_OUTSIDE.format(state="08"), HEAD + LISTEN6]) == 1, "a port of both families"
