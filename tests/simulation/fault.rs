//! What can go wrong at an effect: every errno that it can return, an answer that is lost, half a
//! write, and the end of the daemon before it, within it and after it.

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
    OpenLog,
    Spawn,
    Adopt,
    Find,
    Ask,
    Ready,
    Terminate,
    Kill,
    KillAndReap,
    Clean,
    Reap,
    Watch,
}

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It is refused with this errno. A change of a link and a write are half done then.
    Errno(i32),
    /// It is done, but the answer does not come.
    Lost,
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

const EPERM: i32 = 1;
const ENOENT: i32 = 2;
const EINTR: i32 = 4;
const EIO: i32 = 5;
const ENOMEM: i32 = 12;
const EACCES: i32 = 13;
const EBUSY: i32 = 16;
const EEXIST: i32 = 17;
const ENODEV: i32 = 19;
const EINVAL: i32 = 22;
const ENFILE: i32 = 23;
const EMFILE: i32 = 24;
const ENOSPC: i32 = 28;
const EROFS: i32 = 30;
const ELOOP: i32 = 40;
const EXFULL: i32 = 54;
/// The conversation with the kernel went wrong: a dump that never settled, a silent kernel.
const EPROTO: i32 = 71;
const ERESTART: i32 = 85;
const EOPNOTSUPP: i32 = 95;
const EADDRNOTAVAIL: i32 = 99;
const ENOBUFS: i32 = 105;
const EDQUOT: i32 = 122;

impl Effect<'_> {
    /// All that can go wrong here.
    pub(crate) fn faults(self) -> Vec<Fault> {
        let errnos = self.errnos().iter().copied().map(Fault::Errno);
        errnos.chain(self.others().iter().copied()).collect()
    }

    /// The same with one errno for all, but where it makes a difference which: a recovery goes on,
    /// or does not, whatever the kernel or the disk said when it refused something.
    pub(crate) fn faults_in_brief(self) -> Vec<Fault> {
        let errnos = match self {
            Effect::Read => self.errnos(),
            _ => &self.errnos()[..self.errnos().len().min(1)],
        };
        let errnos = errnos.iter().copied().map(Fault::Errno);
        errnos.chain(self.others().iter().copied()).collect()
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

    fn errnos(self) -> &'static [i32] {
        match self {
            Effect::Apply(op) => errnos_of(op),
            Effect::Observe => &[EPERM, ENOMEM, EMFILE, ENOBUFS, EPROTO],
            Effect::OpenTap => &[EPERM, EACCES, EBUSY, ENODEV, EINVAL, EMFILE],
            Effect::Read => &[EIO, EACCES, ENOMEM, EMFILE],
            Effect::List => &[EIO, EACCES, ENOMEM, EMFILE],
            Effect::MakeDirectory => &[EACCES, ENOSPC, EROFS],
            Effect::Write => &[EIO, EACCES, EMFILE, ENOSPC, EROFS, EDQUOT],
            Effect::Sync => &[EIO, EMFILE, ENOSPC],
            Effect::Rename | Effect::Unlink => &[EIO, EACCES, ENOSPC, EROFS],
            Effect::SyncDirectory => &[EIO, EMFILE, ENOSPC],
            Effect::OpenLog => &[],
            Effect::Spawn
            | Effect::Adopt
            | Effect::Find
            | Effect::Ask
            | Effect::Ready
            | Effect::Terminate
            | Effect::Kill
            | Effect::KillAndReap
            | Effect::Clean
            | Effect::Reap
            | Effect::Watch => &[],
        }
    }

    fn others(self) -> &'static [Fault] {
        use Fault::{Crash, Dies, Lost, Refused};
        use When::{After, Before, Torn};
        match self {
            // These two are made by more than one request and find out by themselves.
            Effect::Apply(Op::CreateBridge { .. } | Op::CreateTap { .. }) => {
                &[Crash(Before), Crash(After)]
            }
            Effect::Apply(_) => &[Lost, Crash(Before), Crash(After)],
            Effect::Write => &[Crash(Before), Crash(Torn), Crash(After)],
            Effect::MakeDirectory
            | Effect::Sync
            | Effect::Rename
            | Effect::Unlink
            | Effect::SyncDirectory => &[Crash(Before), Crash(After)],
            Effect::OpenLog => &[Refused, Crash(Before)],
            Effect::Spawn => &[Refused, Dies, Crash(Before), Crash(After)],
            Effect::Adopt => &[Refused, Dies, Crash(Before), Crash(After)],
            Effect::Ask | Effect::Terminate | Effect::Kill | Effect::KillAndReap => {
                &[Refused, Crash(Before), Crash(After)]
            }
            Effect::Ready | Effect::Watch => &[Refused, Crash(Before)],
            Effect::Reap => &[Refused, Crash(Before), Crash(After)],
            Effect::Clean => &[Crash(Before), Crash(After)],
            // Nothing changes by these: to end before one is to end after the one before.
            Effect::Observe | Effect::OpenTap | Effect::Read | Effect::List | Effect::Find => {
                &[Crash(Before)]
            }
        }
    }
}

/// What the kernel may answer to an Op (rtnetlink(7), the nf_tables sources, open(2) for sysctl).
fn errnos_of(op: &Op) -> &'static [i32] {
    match op {
        Op::CreateBridge { .. } => &[EPERM, ENOMEM, EEXIST, EINVAL, EOPNOTSUPP, ENOBUFS],
        Op::CreateTap { .. } => &[EPERM, EIO, ENOMEM, EACCES, EBUSY, ENODEV, EINVAL, EMFILE],
        Op::SetLink { .. } => {
            &[EPERM, ENOMEM, EBUSY, ENODEV, EINVAL, ELOOP, EXFULL, EOPNOTSUPP, ENOBUFS]
        }
        Op::DeleteLink { .. } => &[EPERM, ENOMEM, EBUSY, EOPNOTSUPP, ENOBUFS],
        Op::AddAddress { .. } => &[EPERM, ENOMEM, ENODEV, EINVAL, EADDRNOTAVAIL, ENOBUFS],
        Op::RemoveAddress { .. } => &[EPERM, ENOMEM, EINVAL, ENOBUFS],
        Op::SetForwarding { .. } => &[EPERM, ENOENT, EINTR, EACCES, EMFILE, EROFS],
        Op::CreateTable(_) | Op::ReplaceTable(_) => {
            &[EPERM, ENOENT, ENOMEM, EBUSY, EEXIST, EINVAL, ERESTART, EOPNOTSUPP, ENOBUFS]
        }
        Op::ShapeLink { .. } => &[EPERM, ENODEV, ENOENT, ENOMEM, ENOBUFS],
        Op::RemoveTable { .. } => &[EPERM, ENOMEM, EBUSY, ERESTART, ENOBUFS],
        Op::AddElements(_) | Op::ExchangeElements { .. } => {
            &[EPERM, ENOENT, ENOMEM, EEXIST, ENFILE, ERESTART, ENOBUFS]
        }
        Op::RemoveElements(_) => &[EPERM, ENOMEM, EBUSY, ENFILE, ERESTART, ENOBUFS],
        Op::AddAccept(_) => &[EPERM, ENOENT, ENOMEM, EINVAL, ERESTART, ENOBUFS],
        Op::RemoveAccept(_) => &[EPERM, ENOMEM, ERESTART, EPROTO, ENOBUFS],
        Op::ForgetAddress { .. } | Op::ForgetFlows { .. } => {
            &[EPERM, ENOMEM, EBUSY, EPROTO, ENOBUFS]
        }
    }
}
