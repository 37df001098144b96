"""Introduces a domain to xenstored, once the stream has said where its rings are.

Source: libxl__build_post (libxl_dom.c): the rings' nodes, which of xenstored's features the domain
may have, the introduction, its quota, in this order.
"""

from __future__ import annotations

import logging

from libxlsr.domain.config import DomainConfig
from libxlsr.domain.config.domain import ALL_XENSTORE_FEATURES
from libxlsr.domain.create import BuildState
from libxlsr.domain.save_helper.parent import Rings
from libxlsr.xen.xenstore import Transaction, Xenstore

log = logging.getLogger(__name__)


def introduce(xenstore: Xenstore, config: DomainConfig, state: BuildState, rings: Rings) -> None:
    """Introduce the domain. Raises TargetError."""
    _write_rings(xenstore, state.domid, rings)
    _limit_features(xenstore, config, state.domid)
    xenstore.introduce_domain(state.domid, rings.store_gfn, state.store_port)
    _set_quota(xenstore, config, state.domid)


def _write_rings(xenstore: Xenstore, domid: int, rings: Rings) -> None:
    def ring_refs(nodes: Transaction) -> None:
        nodes.write(f"/local/domain/{domid}/store/ring-ref", str(rings.store_gfn))
        nodes.write(f"/local/domain/{domid}/console/ring-ref", str(rings.console_gfn))

    xenstore.transact(ring_refs)


def _limit_features(xenstore: Xenstore, config: DomainConfig, domid: int) -> None:
    if config.xenstore_feature_mask == ALL_XENSTORE_FEATURES:
        return
    features = xenstore.features_supported()
    if features is None:  # as libxl takes it
        log.info("domain %d has all features of this xenstored, which can't leave any out", domid)
        return
    xenstore.set_features_domain(domid, features & config.xenstore_feature_mask)


def _set_quota(xenstore: Xenstore, config: DomainConfig, domid: int) -> None:
    """Every image of Xen 4.22 has what its domain had. Where this xenstored has no quota for single
    domains the domain gets the host's, as on the Xen that came before."""
    for quota, value in config.xenstore_quota:
        if not xenstore.set_domain_quota(domid, quota, value):
            log.info("domain %d has xenstored's default quota: it has none for one domain", domid)
            return
