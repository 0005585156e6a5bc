//! The gate: what the kernel drops while this firewall is a backup (`config::gate`).
//!
//! The table of nftables is loaded by `nft` (`nft`). Its sets are filled and emptied over netlink.
//! Their elements expire, so a daemon that dies leaves no closed gate behind.
//!
//! The table can go at any time: `nft flush ruleset`, which is also what a restart of
//! `nftables.service` does. `nft flush table` takes its rules and leaves the sets. So before
//! each write its rules are counted, and if some are gone it is loaded again.

use std::io;
use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context, Result};
use config::Instance;
use config::gate::{CHAIN, SETS, TABLE};
use ctnetlink::{
    Message, SetOfNetworks, chain_rules, decode, messages, put_chain_request, put_sets,
};
use flow::Prefix;
use sys::netlink::{Netlink, RECEIVE_BYTES};

use crate::nft::{Nft, PATIENCE, Text};

/// How long the daemon waits for `nft` at its start and its end, where nothing else waits. A hanging
/// one is killed before that, and the answer says so.
const AT_START_AND_END: Duration = PATIENCE.saturating_add(Duration::from_secs(1));

const REFUSED: &str = "the kernel does not take the sets of the gate";

/// The table in the kernel.
#[derive(Debug)]
pub(crate) struct Gate {
    socket: Netlink,
    nft: Nft,
    seq: u32,
    buffer: Vec<u8>,
    timeout: Duration,
    /// How many rules the table has.
    rules: u32,
}

impl Gate {
    /// Loads the table, with empty sets.
    ///
    /// # Errors
    /// `nft` is missing, or the kernel lacks what the rules need.
    pub(crate) fn load(timeout: Duration) -> Result<Gate> {
        let mut nft = Nft::start().context("can't start what runs nft")?;
        nft.run(Text::Rules, AT_START_AND_END)
            .context("can't load the rules of the gate")?;
        let mut gate = Gate {
            socket: Netlink::open(true).context("netlink socket for the gate")?,
            nft,
            seq: 0,
            buffer: vec![0; RECEIVE_BYTES],
            timeout,
            rules: 0,
        };
        gate.rules = gate
            .count_rules()
            .context("the rules of the gate cannot be read")?;
        Ok(gate)
    }

    /// Keeps out what belongs to these instances and, with `all_forwarded`, everything that
    /// would be forwarded; for as long as the gate's timeout. True if the table or some of its
    /// rules were gone, and it has been loaded again. That takes some milliseconds, and is waited for
    /// for at most `patience`; the next call goes on with it.
    ///
    /// # Errors
    /// The kernel has refused it, or has not answered: what it held before stands. Or the table
    /// is gone, and `nft` has not ended yet.
    pub(crate) fn keep_out(
        &mut self,
        closed: &[&Instance],
        all_forwarded: bool,
        patience: Duration,
    ) -> Result<bool> {
        let sets = sets(closed, all_forwarded);
        let written = match self.has_its_rules() {
            Ok(true) => self.write(&sets).map(|()| true),
            other => other,
        };
        let is_gone = match written {
            Ok(is_whole) => !is_whole,
            Err(e) if e.kind() == io::ErrorKind::NotFound => true,
            Err(e) => return Err(e).context(REFUSED),
        };
        if is_gone {
            self.nft
                .run(Text::Rules, patience)
                .context("can't load the rules of the gate again")?;
            self.write(&sets).context(REFUSED)?;
        }
        Ok(is_gone)
    }

    fn has_its_rules(&mut self) -> io::Result<bool> {
        Ok(self.count_rules()? >= self.rules)
    }

    fn count_rules(&mut self) -> io::Result<u32> {
        self.seq = self.seq.wrapping_add(1);
        let mut request = Vec::new();
        put_chain_request(&mut request, self.seq, TABLE, CHAIN);
        let mut rules = None;
        self.ask(&request, |bytes| {
            for message in messages(bytes).flatten() {
                rules = rules.or(chain_rules(&message).ok().flatten());
            }
        })?;
        rules.ok_or_else(|| io::Error::other("it has not told about the chain"))
    }

    fn write(&mut self, sets: &[SetOfNetworks<'_>]) -> io::Result<()> {
        self.seq = self.seq.wrapping_add(1);
        let mut batch = Vec::new();
        put_sets(&mut batch, self.seq, TABLE, sets, self.timeout);
        self.ask(&batch, |_| {})
    }

    /// Sends requests, of which the last is to be acknowledged. `see` gets what the kernel
    /// answers.
    fn ask(&mut self, requests: &[u8], mut see: impl FnMut(&[u8])) -> io::Result<()> {
        // An answer that an earlier request left behind is not the answer to this one.
        while self.socket.receive(&mut self.buffer).is_ok() {}
        self.socket.send(requests)?;
        // The kernel has answered when `send` returns: errors, or that all is done.
        let mut answer = None;
        while let Ok(bytes) = self.socket.receive(&mut self.buffer) {
            note_answer(&mut answer, bytes);
            see(bytes);
        }
        match answer {
            Some(0) => Ok(()),
            Some(error) => Err(io::Error::from_raw_os_error(-error)),
            None => Err(io::Error::other("it has not answered")),
        }
    }
}

/// Notes what a datagram of the kernel answers: the first error stands, and 0 is success.
fn note_answer(answer: &mut Option<i32>, bytes: &[u8]) {
    for message in messages(bytes) {
        // What cannot be read is no acknowledgement.
        let read = message.and_then(|message| decode(&message));
        if let Ok(Message::Ack { error }) = read
            && answer.is_none_or(|before| before == 0)
        {
            *answer = Some(error);
        }
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        // What stays otherwise are rules without effect.
        if !self.nft.is_running() {
            let _ = self.nft.run(Text::Delete, AT_START_AND_END);
        }
    }
}

/// What the sets hold.
fn sets(closed: &[&Instance], all_forwarded: bool) -> Vec<SetOfNetworks<'static>> {
    let named = || closed.iter().flat_map(|i| &i.addresses).copied();
    let hosts = || named().filter(Prefix::is_host);
    let everything = [IpAddr::from([0; 4]), IpAddr::from([0; 16])];
    let everything = everything.map(|addr| Prefix::new(addr, 0)).into_iter();
    let forwarded: Vec<Prefix> = match all_forwarded {
        true => everything.flatten().collect(),
        false => named().collect(),
    };
    let both = [forwarded, hosts().collect()];
    let family = |n: usize| move |prefix: &&Prefix| prefix.addr().is_ipv6() == (n % 2 == 1);
    let set = |(n, name): (usize, &&'static str)| SetOfNetworks {
        name,
        networks: both[n / 2].iter().filter(family(n)).copied().collect(),
    };
    SETS.iter().enumerate().map(set).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instance(addresses: &[(&str, u8)]) -> Instance {
        let network = |(addr, len): &(&str, u8)| Prefix::new(addr.parse().unwrap(), *len).unwrap();
        Instance {
            name: "A".to_owned(),
            addresses: addresses.iter().map(network).collect(),
        }
    }

    /// What the kernel answers to a request: its header, the error, the header of the request.
    fn answer(error: i32) -> Vec<u8> {
        const NLMSG_ERROR: u32 = 2;
        let error = error.cast_unsigned();
        let words = [36, NLMSG_ERROR, 7, 0, error, 16, 0, 7, 0];
        words.map(u32::to_ne_bytes).concat()
    }

    #[test]
    fn an_answer_is_needed_and_its_first_error_stands() {
        let after = |datagrams: &[Vec<u8>]| {
            let mut noted = None;
            datagrams.iter().for_each(|d| note_answer(&mut noted, d));
            noted
        };
        let gone = -rustix::io::Errno::NOENT.raw_os_error();
        assert_eq!(after(&[]), None);
        assert_eq!(after(&[answer(0)]), Some(0));
        assert_eq!(after(&[answer(gone), answer(-1)]), Some(gone));
        assert_eq!(after(&[[answer(0), answer(gone)].concat()]), Some(gone));
        assert_eq!(after(&[answer(0)[..20].to_vec()]), None, "it is cut off");
    }

    #[test]
    fn a_backup_of_everything_forwards_nothing_and_one_of_a_part_forwards_the_rest() {
        let a = instance(&[("10.0.0.1", 32), ("10.0.0.0", 25), ("fd00::1", 128)]);
        let lens = |sets: &[SetOfNetworks<'_>]| -> Vec<Vec<u8>> {
            let lens = |set: &SetOfNetworks<'_>| set.networks.iter().map(Prefix::len).collect();
            sets.iter().map(lens).collect()
        };
        let all = sets(&[&a], true);
        assert_eq!(lens(&all), [vec![0], vec![0], vec![32], vec![128]]);
        let part = sets(&[&a], false);
        assert_eq!(lens(&part), [vec![32, 25], vec![128], vec![32], vec![128]]);
        let none = sets(&[], false);
        assert!(none.iter().all(|set| set.networks.is_empty()));
    }
}
