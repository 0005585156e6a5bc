//! What a replica notes in the marks of a cache entry.

/// The flow has ended; the entry waits until that has been said.
pub(crate) const DEAD: u8 = 1;

// Internal cache.

/// Updated since it was created: the next message about it is an update.
pub(crate) const UPDATED: u8 = 2;
/// Created by an event and never sent: if it ends now, nobody needs to hear of it.
pub(crate) const UNTOLD: u8 = 4;
/// The peer has told of the flow since our kernel last saw traffic of it: the peer owns it.
pub(crate) const TAKEN: u8 = 8;
/// Found in the kernel at the start or committed: nobody has been told, and whose it
/// is, traffic shows. A flow is never `SILENT` and `TAKEN` or `DEAD` at once.
pub(crate) const SILENT: u8 = 16;
/// Owed by a bulk update, and not yet acknowledged or, without acknowledgements, sent.
pub(crate) const BULK: u8 = 32;
/// The kernel is asked whether it still has the flow, and no event has told of it since.
pub(crate) const DOUBTED: u8 = 64;

// External cache, with injection.

/// The kernel has not been told yet what the peer said last.
pub(crate) const UNWRITTEN: u8 = 8;
/// Our kernel has the flow from us.
pub(crate) const IN_KERNEL: u8 = 16;
/// A request about it is under way.
pub(crate) const BUSY: u8 = 32;
/// It changed meanwhile.
pub(crate) const AGAIN: u8 = 64;
