//! What can go wrong at an effect: every errno that it can return, an answer that is lost, half a
//! write, and the end of the daemon before it, within it and after it.

use volnet::model::error::Reason::{
    self, Busy, Denied, Exists, Full, Invalid, Missing, NoLink, Other, Unsupported,
};
use volnet::plan::op::Op;

/// One effect: a call by which the daemon reaches the world.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Effect<'a> {
    Apply(&'a Op),
    Observe,
    OpenTap,
    Read,
    List,
    MakeDirectory,
    Write,
    Sync,
    Rename,
    Unlink,
    SyncDirectory,
    OpenStreams,
    Spawn,
    Adopt,
    Find,
    Ask,
    Ready,
    Terminate,
    Kill,
    KillAndReap,
    Lend,
    Clean,
    Reap,
    Watch,
    AskArp,
    SendFrame,
    /// A step of the thread that takes a snapshot.
    Save,
    /// It lets the guest go on.
    GoOn,
    RemovePart,
}

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The disk refuses it with this errno. A write is half done then.
    Errno(i32),
    /// The kernel refuses it, for this reason. A change of a link is half done then.
    Kernel(Reason),
    /// The kernel does it, but its answer does not come.
    Lost,
    /// The kernel does not do it, and its answer does not come.
    Undone,
    /// A bridge is made, and its making ends before it has its alias.
    CutShort,
    /// A process that is started ends at once; one that is to be adopted has ended.
    Dies,
    /// A hypervisor says no, or not yet.
    Refused,
    /// The daemon ends.
    Crash(When),
}

/// When the daemon ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum When {
    Before,
    /// With half of the bytes written.
    Torn,
    After,
}

pub(crate) const EIO: i32 = 5;
const ENOMEM: i32 = 12;
const EACCES: i32 = 13;
const EMFILE: i32 = 24;
const ENETDOWN: i32 = 100;
const ENOBUFS: i32 = 105;
const ENOSPC: i32 = 28;
const EROFS: i32 = 30;
const EDQUOT: i32 = 122;

impl Fault {
    /// Whether something is told not to have been done.
    pub(crate) fn is_refusal(self) -> bool {
        matches!(self, Fault::Errno(_) | Fault::Kernel(_) | Fault::Refused)
    }

    /// Whether the answer is lost.
    pub(crate) fn is_unheard(self) -> bool {
        matches!(self, Fault::Lost | Fault::Undone | Fault::CutShort)
    }
}

impl Effect<'_> {
    /// All that can go wrong here.
    pub(crate) fn faults(self) -> Vec<Fault> {
        self.refusals().into_iter().chain(self.others().iter().copied()).collect()
    }

    /// The same with one refusal for all, but where it makes a difference which: a recovery goes
    /// on, or does not, whatever the kernel or the disk said when it refused something.
    pub(crate) fn faults_in_brief(self) -> Vec<Fault> {
        let most = if matches!(self, Effect::Read) { usize::MAX } else { 1 };
        let refusals = self.refusals().into_iter().take(most);
        refusals.chain(self.others().iter().copied()).collect()
    }

    /// Whether it is one of the disk's.
    pub(crate) fn is_of_disk(self) -> bool {
        matches!(
            self,
            Effect::Read
                | Effect::List
                | Effect::MakeDirectory
                | Effect::Write
                | Effect::Sync
                | Effect::Rename
                | Effect::Unlink
                | Effect::SyncDirectory
        )
    }

    /// How it can be refused.
    fn refusals(self) -> Vec<Fault> {
        let reasons = self.reasons().iter().copied().map(Fault::Kernel);
        reasons.chain(self.errnos().iter().copied().map(Fault::Errno)).collect()
    }

    /// Why the kernel may refuse it.
    fn reasons(self) -> &'static [Reason] {
        match self {
            Effect::Apply(op) => reasons_of(op),
            Effect::Observe => &[Denied, Other],
            Effect::OpenTap => &[Denied, Busy, NoLink, Invalid, Other],
            _ => &[],
        }
    }

    /// With which errno the disk may refuse it.
    fn errnos(self) -> &'static [i32] {
        match self {
            Effect::Read => &[EIO, EACCES, ENOMEM, EMFILE],
            Effect::List => &[EIO, EACCES, ENOMEM, EMFILE],
            Effect::MakeDirectory => &[EACCES, ENOSPC, EROFS],
            Effect::Write => &[EIO, EACCES, EMFILE, ENOSPC, EROFS, EDQUOT],
            Effect::Sync => &[EIO, EMFILE, ENOSPC],
            Effect::Rename | Effect::Unlink => &[EIO, EACCES, ENOSPC, EROFS],
            Effect::SyncDirectory => &[EIO, EMFILE, ENOSPC],
            Effect::AskArp => &[ENETDOWN, ENOBUFS],
            Effect::SendFrame => &[ENOBUFS],
            _ => &[],
        }
    }

    fn others(self) -> &'static [Fault] {
        use Fault::{Crash, CutShort, Dies, Lost, Refused, Undone};
        use When::{After, Before, Torn};
        match self {
            // These are made by more than one request: whether they stand is found out there.
            Effect::Apply(Op::CreateBridge { .. } | Op::CreateVeth { .. }) => {
                &[Undone, CutShort, Crash(Before), Crash(Torn), Crash(After)]
            }
            Effect::Apply(Op::CreateTap { .. }) => &[Undone, Crash(Before), Crash(After)],
            Effect::Apply(_) => &[Lost, Undone, Crash(Before), Crash(After)],
            Effect::Write => &[Crash(Before), Crash(Torn), Crash(After)],
            Effect::MakeDirectory
            | Effect::Sync
            | Effect::Rename
            | Effect::Unlink
            | Effect::SyncDirectory => &[Crash(Before), Crash(After)],
            Effect::OpenStreams => &[Refused, Crash(Before)],
            Effect::Spawn => &[Refused, Dies, Crash(Before), Crash(After)],
            Effect::Adopt => &[Refused, Dies, Crash(Before), Crash(After)],
            Effect::Ask | Effect::Terminate | Effect::Kill | Effect::KillAndReap => {
                &[Refused, Crash(Before), Crash(After)]
            }
            Effect::Ready | Effect::Watch => &[Refused, Crash(Before)],
            Effect::Reap => &[Refused, Crash(Before), Crash(After)],
            Effect::Save => &[Refused, Crash(Before), Crash(After)],
            Effect::Lend | Effect::Clean | Effect::GoOn | Effect::RemovePart => {
                &[Crash(Before), Crash(After)]
            }
            // Nothing changes by these: to end before one is to end after the one before.
            Effect::SendFrame => &[Crash(Before)],
            Effect::Observe => &[Lost, Crash(Before)],
            // A question that is lost on its way changes nothing, and nobody says so.
            Effect::AskArp => &[Lost, Crash(Before), Crash(After)],
            Effect::OpenTap | Effect::Read | Effect::List | Effect::Find => &[Crash(Before)],
        }
    }
}

/// Why the kernel may refuse an Op (rtnetlink(7), the nf_tables sources, open(2) for sysctl).
fn reasons_of(op: &Op) -> &'static [Reason] {
    match op {
        Op::CreateBridge { .. } => &[Denied, Exists, Invalid, Unsupported, Other],
        Op::CreateVeth { .. } => &[Denied, Exists, NoLink, Invalid, Unsupported, Other],
        Op::CreateTap { .. } => &[Denied, Busy, NoLink, Invalid, Other],
        Op::SetLink { .. } => {
            &[Denied, Busy, NoLink, Invalid, Reason::Loop, Full, Unsupported, Other]
        }
        Op::DeleteLink { .. } => &[Denied, Busy, Unsupported, Other],
        Op::AddAddress { .. } => &[Denied, NoLink, Invalid, Other],
        Op::RemoveAddress { .. } => &[Denied, Invalid, Other],
        Op::AddRoute(_) => &[Denied, NoLink, Invalid, Other],
        Op::RemoveRoute(_) => &[Denied, Other],
        Op::SetForwarding { .. } | Op::SetSwitch { .. } => &[Denied, Missing, Other],
        Op::CreateTable(_) | Op::ReplaceTable(_) => {
            &[Denied, Missing, Busy, Exists, Invalid, Unsupported, Other]
        }
        Op::ShapeLink { .. } => &[Denied, NoLink, Missing, Other],
        Op::RemoveTable { .. } => &[Denied, Busy, Other],
        Op::AddElements(_) | Op::ExchangeElements { .. } => &[Denied, Missing, Exists, Other],
        Op::RemoveElements(_) => &[Denied, Busy, Other],
        Op::AddAccept(_) => &[Denied, Missing, Invalid, Other],
        Op::RemoveAccept(_) => &[Denied, Other],
        Op::ForgetAddress { .. } | Op::ForgetFlows { .. } => &[Denied, Busy, Other],
    }
}
