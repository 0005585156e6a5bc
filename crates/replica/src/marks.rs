//! What a replica notes in the marks of a cache entry.

/// The flow has ended; the entry waits until that has been sent.
pub(crate) const DEAD: u16 = 1;

// Internal cache.

/// Updated since it was created: the next message about it is an update.
pub(crate) const UPDATED: u16 = 2;
/// Created by an event and never sent: if it ends now, nobody needs to know.
pub(crate) const UNTOLD: u16 = 4;
/// The peer has announced the flow since our kernel last saw traffic of it: the peer owns it.
pub(crate) const TAKEN: u16 = 8;
/// Found in the kernel at the start or committed: it is not announced, and traffic
/// shows whose it is. A flow is never `SILENT` and `TAKEN` or `DEAD` at once.
pub(crate) const SILENT: u16 = 16;
/// Owed by a bulk update, and not yet acknowledged or, without acknowledgements, sent.
pub(crate) const BULK: u16 = 32;
/// The kernel is asked whether it still has the flow, and no event has told of it since.
pub(crate) const DOUBTED: u16 = 64;
/// A sweep has noted the kernel's timeout since the flow was `TAKEN`: from here on a
/// longer one is evidence of traffic. The copy of a former owner may live longer than
/// its last event says, so the first look is none.
pub(crate) const NOTED: u16 = 128;
/// The owner has announced the end of a flow that it had `TAKEN`: our kernel's copy is
/// of no use any more.
pub(crate) const ENDED: u16 = 256;
/// `SILENT`, and offered to the peer as such.
pub(crate) const OFFERED: u16 = 512;

// External cache.

/// Our kernel has seen traffic of the flow since the peer announced it. We announce it;
/// until the peer has acknowledged that, the peer counts on this entry.
pub(crate) const OURS: u16 = 2;
/// The peer has only offered it: whose it is, nobody knows.
pub(crate) const OFFER: u16 = 4;

/// The peer has announced it since the commit, under way or over, has read it.
pub(crate) const LATE: u16 = 256;

// External cache, with injection.

/// The kernel has not been told yet what the peer sent last.
pub(crate) const UNWRITTEN: u16 = 8;
/// Our kernel has the flow from us.
pub(crate) const IN_KERNEL: u16 = 16;
/// A request about it is under way.
pub(crate) const BUSY: u16 = 32;
/// It changed meanwhile.
pub(crate) const AGAIN: u16 = 64;
/// Offered, and kept out of the kernel, whose table has survived: only a commit writes it.
pub(crate) const HELD: u16 = 128;
