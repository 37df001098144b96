"""Two hosts with a link between them, a network of their own."""

from __future__ import annotations

from dataclasses import dataclass

from .emulator import LINK, monitor
from .host import Host, free_port, running_host
from .image import LabError
from .snapshot import boot

NAMES = ("first", "second")
"""What the two are called where they stay up."""
ADDRESSES = ("192.168.77.1", "192.168.77.2")


@dataclass(frozen=True)
class Pair:
    """Two hosts that are up. Each one's root gets into the other by ssh, as xl migrate does."""

    first: Host
    second: Host

    @property
    def hosts(self) -> tuple[Host, Host]:
        return self.first, self.second

    def cut_link(self) -> None:
        """Pull the cable: what either sends is lost, and both see that there is none."""
        self._connect_link(False)

    def mend_link(self) -> None:
        """Plug it in again."""
        self._connect_link(True)

    def _connect_link(self, connected: bool) -> None:
        for host in self.hosts:
            with monitor(host.run_dir) as qemu:
                qemu.connect_link(connected)

    def load_again(self) -> None:
        """Put both back to how they were when they were loaded."""
        # In order: the second connects to the first.
        for host in self.hosts:
            host.load_again()
        _set_up_link(self)

    def shut_down(self) -> None:
        for host in self.hosts:
            host.shut_down()


def boot_pair(xen: str, second_xen: str | None = None, *, keep: bool = False) -> Pair:
    """Two hosts from their snapshots, `second_xen` the second one's release if it is another.

    With `keep` they outlive this process and `running_pair` finds them.
    """
    names = NAMES if keep else (None, None)
    where = f"127.0.0.1:{free_port()}"
    first = boot(xen, keep_as=names[0], link=f"socket,id={LINK},listen={where}")
    try:
        link = f"socket,id={LINK},connect={where}"
        second = boot(second_xen or xen, keep_as=names[1], link=link)
    except BaseException:
        first.shut_down()
        raise
    pair = Pair(first, second)
    try:
        _set_up_link(pair)
    except BaseException:
        pair.shut_down()
        raise
    return pair


def running_pair() -> Pair | None:
    """The two that `boot_pair` left up, if they are."""
    first, second = map(running_host, NAMES)
    return Pair(first, second) if first and second else None


def _set_up_link(pair: Pair) -> None:
    # Both come from snapshots with one card's address in them.
    for number, host in enumerate(pair.hosts, start=1):
        other = pair.hosts[2 - number].image.identity.strip()
        host.run(
            f"ip link set eth1 address 52:54:00:77:00:{number:02x} &&"
            f" ip address replace {ADDRESSES[number - 1]}/24 dev eth1 && ip link set eth1 up &&"
            f" echo {other} >>/root/.ssh/authorized_keys"
        )
    done = pair.first.run(f"busybox ping -c 1 -w 60 {ADDRESSES[1]}", check=False)
    if done.returncode != 0:
        raise LabError(f"the link does not answer: {done.stdout}{done.stderr}")
