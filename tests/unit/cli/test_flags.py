from __future__ import annotations

from ipaddress import ip_network

import pytest

from buildpool.cli.flags import networks_of
from buildpool.core.errors import BuildpoolError


def test_networks_are_read() -> None:
    assert networks_of(["100.64.0.0/10", "fd00:ec2::254"]) == (
        ip_network("100.64.0.0/10"),
        ip_network("fd00:ec2::254/128"),
    )


@pytest.mark.parametrize("text", ["10.0.0.1/8", "example.com", "", "10.0.0.0/33"])
def test_what_is_no_network_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(BuildpoolError, match=r"--deny-network: .*; write it like 10.0.0.0/8"):
        networks_of([text])
