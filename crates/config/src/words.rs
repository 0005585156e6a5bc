//! The table of words: where each may stand, what follows it, what it does, and what
//! messages report about it. Everything that the program knows about a word stands here.
//!
//! A value that is one of a few words (`Accept`, `FTFW`) is a section of its own, so that
//! its words stand in the table like all others.

use flow::{Policy, TcpState};

use crate::draft::{Draft, OVERRUN_RESYNC_DEFAULT, given};
use crate::meaning::Family::{V4, V6};
use crate::meaning::Note::{Deprecated, Misplaced, Quiet, Warning};
use crate::meaning::Part::{self, *};
use crate::meaning::{Use, Word};
use crate::section::Section::{self, *};
use crate::{Facility, Mode, SchedulerType, SystemCalls, Transport};

/// The word that `text` is in a section. The original's words are case-sensitive, but
/// published files have some in another case, so these are understood.
pub(crate) fn find(text: &str, section: Section) -> Option<(&'static Word, &'static Use)> {
    let find = |is: &dyn Fn(&Word) -> bool| {
        let here = |w: &'static Word| Some((w, w.use_in(section)?));
        WORDS.iter().filter(|w| is(w)).find_map(here)
    };
    find(&|w| w.word == text).or_else(|| find(&|w| w.word.eq_ignore_ascii_case(text)))
}

/// Words that messages suggest in a section, in the order of the table.
pub(crate) fn suggested(section: Section) -> impl Iterator<Item = &'static str> {
    let is_good = move |w: &&Word| w.use_in(section).is_some_and(Use::is_suggested);
    WORDS.iter().filter(is_good).map(|w| w.word)
}

const fn w(word: &'static str, uses: &'static [Use]) -> Word {
    Word { word, uses }
}

const fn at(sections: &'static [Section], parts: &'static [Part]) -> Use {
    Use {
        sections,
        parts,
        note: Quiet,
    }
}

const LINKS: &[Section] = &[Multicast, Udp, Tcp];
const UNICAST: &[Section] = &[Udp, Tcp];
const GATES: &[Section] = &[Gate, GateInstance];
const MODES: &[Section] = &[Sync, ModeAlarm, ModeFtfw, ModeNotrack];

/// Longest path of a file.
const PATH_MAX: usize = 256;
/// `sizeof(sockaddr_un.sun_path) - 1`
const SOCKET_PATH_MAX: usize = 107;

/// Understood, but nothing is done with the value.
const NUMBER_UNUSED: Part = Number(|_, _| ());
const NETLINK_BUFFER: &[Part] = &[Number(|d, n| d.config.netlink_buffer = Some(n as usize))];
const NETLINK_BUFFER_MAX: &[Part] = &[Number(|d, n| d.config.netlink_buffer_max = n as usize)];
const ALARM: &[Part] = &[Do(|d| d.mode(Mode::Alarm)), Block(ModeAlarm)];
const FTFW: &[Part] = &[Do(|d| d.mode(Mode::Ftfw)), Block(ModeFtfw)];
const CLOSE: &[Part] = &[Do(|d| d.state(TcpState::CLOSE))];

/// Every reserved word of the language (configuration reference, section 2), and
/// ours: `ConntrackEvents`, `GatherEvents`, `AliveTrailer`, `Gate` with what stands in it, `Metrics` with `File`
/// and `Interval`, and `Sandbox` with what stands in it.
#[rustfmt::skip]
pub(crate) static WORDS: &[Word] = &[
    w("General", &[at(&[File], &[Block(General)])]),
    w("Sync", &[at(&[File], &[Do(Draft::begin_sync), Block(Sync)])]),
    w("Stats", &[
        at(&[File], &[Do(Draft::begin_stats), Block(Stats)]),
        // CloudStack's files have it here, beside `Sync`.
        at(&[General], &[Block(Stats)])
            .note(Misplaced("`Stats` belongs outside General: passed over here")),
    ]),
    w("Helper", &[at(&[File], &[Block(Helper)])
        .note(Warning("user-space helpers are not run: load the kernel's, such as nf_conntrack_ftp"))]),

    w("HashSize", &[at(&[General], &[NUMBER_UNUSED])
        .note(Warning("`HashSize` has no effect: tables grow by themselves up to `HashLimit`"))]),
    w("HashLimit", &[at(&[General], &[Number(Draft::hash_limit)])]),
    w("LogFile", &[
        at(&[General], &[SwitchOr(Draft::log_switch, &Path(PATH_MAX, |d, p| d.config.log_file = Some(p)))]),
        at(&[Stats], &[SwitchOr(
            Draft::stats_log_switch,
            &Path(PATH_MAX, |d, p| d.stats().log_file = Some(p)),
        )]),
    ]),
    w("Syslog", &[
        at(&[General], &[SwitchOr(
            |d, on| d.config.syslog = on.then_some(Facility::DAEMON),
            &Text("FACILITY", Draft::syslog),
        )]),
        at(&[Stats], &[SwitchOr(
            |d, on| d.stats().syslog = on.then_some(Facility::DAEMON),
            &Text("FACILITY", Draft::stats_syslog),
        )]),
    ]),
    w("LockFile", &[at(&[General], &[Path(PATH_MAX, |d, p| d.config.lock_file = p)])]),
    w("UNIX", &[at(&[General], &[Block(Unix)])]),
    w("Path", &[at(&[Unix], &[Path(SOCKET_PATH_MAX, Draft::control_path)])]),
    w("Backlog", &[at(&[Unix], &[NUMBER_UNUSED])
        .note(Warning("`Backlog` is deprecated and has no effect"))]),
    w("NetlinkBufferSize", &[at(&[General], NETLINK_BUFFER)]),
    w("SocketBufferSize", &[at(&[General], NETLINK_BUFFER)]),
    w("NetlinkBufferSizeMaxGrowth", &[at(&[General], NETLINK_BUFFER_MAX)]),
    w("SocketBufferSizeMaxGrown", &[at(&[General], NETLINK_BUFFER_MAX)]),
    w("SocketBufferSizeMaxGrowth", &[at(&[General], NETLINK_BUFFER_MAX)]),
    w("NetlinkOverrunResync", &[at(&[General], &[SwitchOr(
        |d, on| d.config.overrun_resync = on.then_some(OVERRUN_RESYNC_DEFAULT),
        &Number(|d, n| d.config.overrun_resync = given(n).or(Some(OVERRUN_RESYNC_DEFAULT))),
    )])]),
    w("NetlinkEventsReliable", &[at(&[General], &[Switch(|d, on| d.config.events_reliable = on)])]),
    w("EventIterationLimit", &[at(&[General], &[Number(|d, n| d.config.event_iteration_limit = given(n))])]),
    w("ConntrackEvents", &[at(&[General], &[Switch(|d, on| d.config.conntrack_events = on)])]),
    w("GatherEvents", &[at(&[General], &[Switch(|d, on| d.config.gather_events = on)])]),
    w("PollSecs", &[at(&[General], &[Number(Draft::poll_secs)])]),
    w("Nice", &[at(&[General], &[Text("-20", Draft::nice)])
        .note(Warning("`Nice` has no effect: set it from outside with nice(1)"))]),
    w("Scheduler", &[at(&[General], &[Block(Scheduler), Do(Draft::end_scheduler)])]),
    w("Type", &[
        at(&[Scheduler], &[OneOf(SchedulerClass)]),
        at(&[Helper], &[Name(Draft::helper_name), OneOf(HelperLayer3), OneOf(HelperLayer4), Block(Helper)]),
    ]),
    w("RR", &[at(&[SchedulerClass], &[Do(|d| d.scheduler_type = Some(SchedulerType::RoundRobin))])]),
    w("FIFO", &[at(&[SchedulerClass], &[Do(|d| d.scheduler_type = Some(SchedulerType::Fifo))])]),
    w("Priority", &[at(&[Scheduler], &[Number(Draft::priority)])]),
    w("Systemd", &[at(&[General], &[Switch(|d, on| d.config.systemd = Some(on))])]),

    w("Metrics", &[at(&[General], &[Do(Draft::begin_metrics), Block(Section::Metrics), Do(Draft::end_metrics)])]),
    w("File", &[at(&[Section::Metrics], &[Path(PATH_MAX, |d, p| d.metrics.file = Some(p))])]),
    w("Interval", &[at(&[Section::Metrics], &[Number(Draft::metrics_interval)])]),

    w("Sandbox", &[at(&[General], &[Block(Section::Sandbox)])]),
    w("Capabilities", &[at(&[Section::Sandbox], &[Switch(|d, on| d.config.sandbox.capabilities = on)])]),
    w("SystemCalls", &[at(&[Section::Sandbox], &[SwitchOr(
        |d, on| d.config.sandbox.system_calls = if on { SystemCalls::Refuse } else { SystemCalls::All },
        &OneOf(SystemCallPolicy),
    )])]),
    w("Kill", &[at(&[SystemCallPolicy], &[Do(|d| d.config.sandbox.system_calls = SystemCalls::Kill)])]),
    w("Files", &[at(&[Section::Sandbox], &[Switch(|d, on| d.config.sandbox.files = on)])]),

    w("Filter", &[at(&[General], &[
        // The last block decides for all.
        Do(|d| d.config.filter_in_kernel = false), MaybeOneOf(FilterFrom), Block(Filter),
    ])]),
    w("From", &[at(&[FilterFrom], &[OneOf(FilterPlace)])]),
    w("Userspace", &[at(&[FilterPlace], &[])]),
    w("Kernelspace", &[at(&[FilterPlace], &[Do(|d| d.config.filter_in_kernel = true)])]),
    w("Protocol", &[at(&[Filter], &[OneOf(Section::Policy), Names(Draft::protocols), Do(Draft::end_protocols)])]),
    w("Address", &[at(&[Filter], &[OneOf(Section::Policy), Block(FilterAddress), Do(Draft::end_addresses)])]),
    w("State", &[at(&[Filter], &[OneOf(Section::Policy), Block(FilterState), Do(Draft::end_states)])]),
    w("Accept", &[at(&[Section::Policy], &[Do(|d| d.policy = Some(Policy::Accept))])]),
    w("Ignore", &[at(&[Section::Policy], &[Do(|d| d.policy = Some(Policy::Ignore))])]),
    w("SYN_SENT", &[at(&[FilterState], &[Do(|d| d.state(TcpState::SYN_SENT))])]),
    w("SYN_RECV", &[at(&[FilterState], &[Do(|d| d.state(TcpState::SYN_RECV))])]),
    w("ESTABLISHED", &[at(&[FilterState], &[Do(|d| d.state(TcpState::ESTABLISHED))])]),
    w("FIN_WAIT", &[at(&[FilterState], &[Do(|d| d.state(TcpState::FIN_WAIT))])]),
    w("CLOSE_WAIT", &[at(&[FilterState], &[Do(|d| d.state(TcpState::CLOSE_WAIT))])]),
    w("LAST_ACK", &[at(&[FilterState], &[Do(|d| d.state(TcpState::LAST_ACK))])]),
    w("TIME_WAIT", &[at(&[FilterState], &[Do(|d| d.state(TcpState::TIME_WAIT))])]),
    w("CLOSE", &[at(&[FilterState], CLOSE)]),
    w("CLOSED", &[at(&[FilterState], CLOSE)]),
    // The kernel uses the number for a simultaneous open now.
    w("LISTEN", &[at(&[FilterState], &[Do(|d| d.state(TcpState::SYN_SENT2))])]),
    w("for", &[at(&[FilterState], &[Do(Draft::end_state_group), OneOf(StateProtocol)])]),

    w("Mode", &[at(&[Sync], &[OneOf(ModeName)])]),
    w("NOTRACK", &[at(&[ModeName], &[Do(|d| d.mode(Mode::Notrack)), Block(ModeNotrack)])]),
    w("ALARM", &[at(&[ModeName], ALARM)]),
    w("PERSISTENT", &[at(&[ModeName], ALARM).note(Deprecated("ALARM"))]),
    w("FTFW", &[at(&[ModeName], FTFW)]),
    w("NACK", &[at(&[ModeName], FTFW).note(Deprecated("FTFW"))]),
    w("RefreshTime", &[at(&[Sync, ModeAlarm], &[Number(|d, n| d.sync.refresh_time = n)])]),
    w("CacheTimeout", &[at(&[Sync, ModeAlarm], &[Number(|d, n| d.sync.cache_timeout = n)])]),
    w("CommitTimeout", &[at(MODES, &[Number(|d, n| d.sync.commit_timeout = given(n))])]),
    w("PurgeTimeout", &[at(MODES, &[Number(|d, n| d.sync.purge_timeout = n)])]),
    w("ResendQueueSize", &[at(&[ModeFtfw], &[Number(|d, n| d.sync.resend_queue_size = n)])]),
    w("ACKWindowSize", &[at(&[ModeFtfw], &[Number(|d, n| d.sync.ack_window_size = n)])]),
    w("DisableInternalCache", &[at(&[ModeNotrack], &[Switch(|d, on| d.sync.disable_internal_cache = on)])]),
    w("DisableExternalCache", &[at(&[ModeFtfw, ModeNotrack], &[Switch(|d, on| d.sync.disable_external_cache = on)])]),
    w("StartupResync", &[at(&[ModeFtfw, ModeNotrack], &[Switch(|d, on| d.sync.startup_resync = on)])]),

    w("Multicast", &[at(&[Sync], &[
        Do(|d| d.begin_link(Transport::Multicast)), MaybeOneOf(LinkFlag), Block(Multicast), Do(Draft::end_link),
    ])]),
    w("UDP", &[at(&[Sync], &[
        Do(|d| d.begin_link(Transport::Udp)), MaybeOneOf(LinkFlag), Block(Udp), Do(Draft::end_link),
    ])]),
    w("TCP", &[
        at(&[Sync], &[
            Do(|d| d.begin_link(Transport::Tcp)), MaybeOneOf(LinkFlag), Block(Tcp), Do(Draft::end_link),
        ]),
        at(&[StateProtocol], &[]),
    ]),
    w("Default", &[at(&[LinkFlag], &[Do(|d| d.link.default = true)])]),
    w("IPv4_address", &[
        at(&[Multicast], &[Address(V4, Draft::group)]),
        at(UNICAST, &[Address(V4, |d, a| d.link.address = Some(a))]),
        at(&[Section::Metrics], &[Address(V4, |d, a| d.metrics.address = Some(a))]),
        at(&[FilterAddress], &[Text("ADDRESS[/LENGTH]", |d, t| d.network(t, V4))]),
        at(GATES, &[Text("ADDRESS[/LENGTH]", |d, t| d.gate_address(t, V4))]),
    ]),
    w("IPv6_address", &[
        at(&[Multicast], &[Address(V6, Draft::group)]),
        at(UNICAST, &[Address(V6, |d, a| d.link.address = Some(a))]),
        at(&[Section::Metrics], &[Address(V6, |d, a| d.metrics.address = Some(a))]),
        at(&[FilterAddress], &[Text("ADDRESS[/LENGTH]", |d, t| d.network(t, V6))]),
        at(GATES, &[Text("ADDRESS[/LENGTH]", |d, t| d.gate_address(t, V6))]),
    ]),
    w("IPv4_interface", &[at(&[Multicast], &[Address(V4, Draft::interface_address)])]),
    w("IPv6_interface", &[at(&[Multicast], &[Text("ADDRESS", |_, _| ())])
        .note(Warning("`IPv6_interface` is not needed and has no effect"))]),
    w("IPv4_Destination_Address", &[at(UNICAST, &[Address(V4, |d, a| d.link.destination = Some(a))])]),
    w("IPv6_Destination_Address", &[at(UNICAST, &[Address(V6, |d, a| d.link.destination = Some(a))])]),
    w("Interface", &[at(LINKS, &[Name(Draft::interface)])]),
    w("Group", &[at(&[Multicast], &[Number(Draft::port)])]),
    w("Port", &[at(UNICAST, &[Number(Draft::port)]), at(&[Section::Metrics], &[Number(Draft::metrics_port)])]),
    w("SndSocketBuffer", &[at(LINKS, &[Number(|d, n| d.link.send_buffer = Some(n as usize))])]),
    w("RcvSocketBuffer", &[at(LINKS, &[Number(|d, n| d.link.receive_buffer = Some(n as usize))])]),
    w("Checksum", &[at(LINKS, &[Switch(|d, on| d.link.checksum = on)])]),
    w("ErrorQueueLength", &[at(&[Tcp], &[Number(|d, n| d.sync.error_queue_length = given(n))])]),

    w("Options", &[at(&[Sync], &[Block(Options)])]),
    w("TCPWindowTracking", &[at(&[Options], &[Switch(|d, on| d.sync.window_tracking = on)])]),
    w("AliveTrailer", &[at(&[Options], &[Switch(|d, on| d.sync.alive_trailer = on)])]),
    w("ExpectationSync", &[at(&[Options], &[SwitchOr(
        |d, on| d.sync.expectation_sync = on.then(Vec::new),
        &Names(Draft::helpers),
    )])]),

    w("Gate", &[at(&[Sync], &[Do(Draft::begin_gate), Block(Gate), Do(Draft::end_gate)])]),
    w("Timeout", &[at(&[Gate], &[Number(Draft::gate_timeout)])]),
    w("Instance", &[at(&[Gate], &[Name(Draft::instance), Block(GateInstance), Do(Draft::end_instance)])]),

    // Helper blocks are checked, and have no effect beyond that.
    w("Setup", &[at(&[Helper], &[Switch(|_, _| ())])]),
    w("QueueNum", &[at(&[Helper], &[NUMBER_UNUSED])]),
    w("QueueLen", &[at(&[Helper], &[NUMBER_UNUSED])]),
    w("Policy", &[at(&[Helper], &[Name(Draft::helper_policy), Block(Helper), Do(Draft::end_helper_policy)])]),
    w("ExpectMax", &[at(&[Helper], &[Number(|d, _| d.helper_policy_value())])]),
    w("ExpectTimeout", &[at(&[Helper], &[Number(|d, _| d.helper_policy_value())])]),
    w("inet", &[at(&[HelperLayer3], &[])]),
    w("inet6", &[at(&[HelperLayer3], &[])]),
    w("tcp", &[at(&[HelperLayer4], &[Do(|d| d.helper_transport("tcp"))])]),
    w("udp", &[at(&[HelperLayer4], &[Do(|d| d.helper_transport("udp"))])]),
];
