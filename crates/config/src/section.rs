//! The sections of the language: a place where some of the words may stand.

/// A place where words stand: a block, or the value of another word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Section {
    /// Outside all braces.
    File,
    General,
    Unix,
    Scheduler,
    Metrics,
    Sandbox,
    Filter,
    FilterAddress,
    FilterState,
    Sync,
    ModeAlarm,
    ModeFtfw,
    ModeNotrack,
    Multicast,
    Udp,
    Tcp,
    Options,
    Gate,
    GateInstance,
    Stats,
    Helper,
    /// After `Mode`.
    ModeName,
    /// After the transport of a link.
    LinkFlag,
    /// After `Filter`.
    FilterFrom,
    /// After `From`.
    FilterPlace,
    /// After `Protocol`, `Address` and `State` in a filter.
    Policy,
    /// After `for` in a list of states.
    StateProtocol,
    /// After `Type` in a scheduler.
    SchedulerClass,
    /// After `SystemCalls` in a sandbox.
    SystemCallPolicy,
    /// After the name of a helper's `Type`.
    HelperLayer3,
    /// After the third layer of a helper's `Type`.
    HelperLayer4,
}

impl Section {
    /// How a message names a block; `None` for a value.
    pub(crate) fn block_name(self) -> Option<&'static str> {
        Some(match self {
            Section::File => "the file, outside all braces",
            Section::General => "General",
            Section::Unix => "General { UNIX }",
            Section::Scheduler => "General { Scheduler }",
            Section::Metrics => "General { Metrics }",
            Section::Sandbox => "General { Sandbox }",
            Section::Filter => "General { Filter }",
            Section::FilterAddress => "General { Filter { Address } }",
            Section::FilterState => "General { Filter { State } }",
            Section::Sync => "Sync",
            Section::ModeAlarm => "Sync { Mode ALARM }",
            Section::ModeFtfw => "Sync { Mode FTFW }",
            Section::ModeNotrack => "Sync { Mode NOTRACK }",
            Section::Multicast => "Sync { Multicast }",
            Section::Udp => "Sync { UDP }",
            Section::Tcp => "Sync { TCP }",
            Section::Options => "Sync { Options }",
            Section::Gate => "Sync { Gate }",
            Section::GateInstance => "Sync { Gate { Instance } }",
            Section::Stats => "Stats",
            Section::Helper => "Helper",
            Section::ModeName
            | Section::LinkFlag
            | Section::FilterFrom
            | Section::FilterPlace
            | Section::Policy
            | Section::StateProtocol
            | Section::SchedulerClass
            | Section::SystemCallPolicy
            | Section::HelperLayer3
            | Section::HelperLayer4 => return None,
        })
    }

    /// The original accepts the words in any case.
    pub(crate) fn is_any_case(self) -> bool {
        matches!(self, Section::ModeName | Section::SchedulerClass)
    }

    /// Words of General are understood here, too. What they mean is clear, and the
    /// original's own manual page has one of them wrong.
    pub(crate) fn understands_general(self) -> bool {
        matches!(self, Section::File | Section::Sync | Section::Stats)
    }
}
