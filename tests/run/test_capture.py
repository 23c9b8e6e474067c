"""Packet captures of a trial."""

from loadtests.run.capture import dropped

LOG = """Capturing on 'primary' and 'secondary'
File: client.pcapng
Packets captured: 184078
Packets received/dropped on interface 'primary': 92039/1136 (pcap:1136/dumpcap:0/flushed:0/ps_ifdrop:0) (98.8%)
Packets received/dropped on interface 'secondary': 92039/12 (pcap:12/dumpcap:0/flushed:0/ps_ifdrop:0) (99.9%)
"""


def test_packets_without_room_are_counted_on_all_interfaces() -> None:
    assert dropped(LOG) == 1148
    assert dropped("File: client.pcapng\n") == 0, "it was killed before it said so"
