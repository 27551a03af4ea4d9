//! Who is connected, and how many requests each of them has under way.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Addresses remembered before those without a connection are forgotten.
const REMEMBERED: usize = 1024;

/// A client's address, shared by its connections.
#[derive(Debug)]
pub(crate) struct Peer {
    address: IpAddr,
    under_way: AtomicUsize,
}

impl Peer {
    /// The address.
    pub(crate) fn address(&self) -> IpAddr {
        self.address.to_canonical()
    }

    /// Whether it is on this machine.
    pub(crate) fn is_local(&self) -> bool {
        self.address.to_canonical().is_loopback()
    }

    /// Counts one more request until the returned value is dropped; `None` if it has `most` under way.
    pub(crate) fn begin(self: &Arc<Self>, most: usize) -> Option<UnderWay> {
        let more = |count: usize| (count < most).then_some(count + 1);
        self.under_way.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()?;
        Some(UnderWay(self.clone()))
    }
}

/// A request under way.
#[derive(Debug)]
pub(crate) struct UnderWay(Arc<Peer>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The clients that have connections.
#[derive(Debug, Default)]
pub(crate) struct Peers {
    known: Mutex<HashMap<IpAddr, Arc<Peer>>>,
}

impl Peers {
    /// The client of this address, for as long as its connection lasts.
    pub(crate) fn enter(&self, address: IpAddr) -> Arc<Peer> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= REMEMBERED {
            known.retain(|_, peer| Arc::strong_count(peer) > 1);
        }
        known.entry(address).or_insert_with(|| Arc::new(Peer { address, under_way: AtomicUsize::new(0) })).clone()
    }
}
