//! What moves the addresses of a set-up: its places on a machine, and how it is started.

/// A cluster manager, from Debian's package.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Manager {
    /// VRRP. Without a file for it nothing is started.
    Keepalived,
    /// With Corosync. It starts the daemon itself.
    Pacemaker,
    /// heartbeat 3 with `haresources`.
    Heartbeat,
}

/// Shell functions: `empty DIR OWNER MODE` makes a folder of the machine's own, `over DIR` lets the
/// machine see a folder of the system and keeps for itself what it writes there.
const FUNCTIONS: &str = "
empty() { mount -t tmpfs -o mode=$3 tmpfs $1; chown $2 $1; }
over() {
    mkdir -p /run/over$1/upper /run/over$1/work
    mount -t overlay -o lowerdir=$1,upperdir=/run/over$1/upper,workdir=/run/over$1/work overlay $1
}
";

const PACEMAKER: &str = "
empty /dev/shm root 1777
empty /etc/corosync root 755
empty /var/lib/corosync root 755
empty /var/lib/pacemaker root 755
mkdir -p /run/resource-agents /var/log/corosync /var/log/crmsh /var/log/pacemaker
chown hacluster:haclient /var/log/pacemaker
for dir in blackbox cib cores pengine; do
    install -d -o hacluster -g haclient -m 750 /var/lib/pacemaker/$dir
done
# Where the package has the agent.
over /usr/lib/ocf/resource.d
mkdir -p /usr/lib/ocf/resource.d/ftfw
ln -sf $agent /usr/lib/ocf/resource.d/ftfw/ftfw
# Instead of corosync-keygen and scp.
head -c 128 /dev/zero >/etc/corosync/authkey
# A new cluster waits as long for one that is there already: 20 s, unless it is told otherwise.
cib=/var/lib/pacemaker/cib/cib.xml
cibadmin --empty >$cib
CIB_file=$cib crm_attribute --type crm_config --name dc-deadtime --update 1s
chown hacluster:haclient $cib
chmod 600 $cib
";

const HEARTBEAT: &str = "
empty /dev/shm root 1777
over /etc/ha.d
over /var/lib/heartbeat
mkdir -p /run/resource-agents
install -d -o hacluster -g haclient -m 750 \
    /run/heartbeat /run/heartbeat/ccm /run/heartbeat/crm /run/heartbeat/dopd
";

impl Manager {
    /// Lines of the shell that give it its places; `$agent` is our resource agent.
    pub(super) fn places(self) -> String {
        let own = match self {
            Manager::Keepalived => "empty /etc/keepalived root 755",
            Manager::Pacemaker => PACEMAKER,
            Manager::Heartbeat => HEARTBEAT,
        };
        format!("{FUNCTIONS}{own}\n")
    }

    /// Lines of the shell that move its files there; they begin in `/etc/conntrackd`.
    pub(super) fn files(self) -> &'static str {
        match self {
            Manager::Keepalived => {
                "[ ! -f keepalived.conf ] || mv keepalived.conf /etc/keepalived/\n"
            }
            Manager::Pacemaker => {
                "mv corosync.conf /etc/corosync/\nmount --bind hosts /etc/hosts\n"
            }
            Manager::Heartbeat => {
                "mv ha.cf haresources authkeys /etc/ha.d/\n\
                 chmod 600 /etc/ha.d/authkeys\n\
                 mv resource /etc/ha.d/resource.d/ftfw\n"
            }
        }
    }

    /// The line of the shell that starts the daemon before it.
    pub(super) fn start_daemon(self) -> &'static str {
        match self {
            Manager::Keepalived => "conntrackd -d",
            // It starts the daemon itself.
            Manager::Pacemaker => "true",
            // It says nothing to who is not primary.
            Manager::Heartbeat => "conntrackd -d && ftfw backup",
        }
    }

    /// The line of the shell that takes ftfw out of its files.
    pub(super) fn without_ftfw(self) -> &'static str {
        match self {
            Manager::Heartbeat => "sed -i 's/^fw1 ftfw /fw1 /' /etc/ha.d/haresources",
            // It is in a file of its own, or called by a script that fails.
            Manager::Keepalived | Manager::Pacemaker => "true",
        }
    }

    /// The line of the shell that starts it. The machine has no syslog.
    pub(super) fn start(self) -> &'static str {
        match self {
            Manager::Keepalived => {
                "[ ! -f /etc/keepalived/keepalived.conf ] || keepalived --dont-fork --log-console \
                 </dev/null >>/var/log/keepalived.log 2>&1 &"
            }
            Manager::Pacemaker => {
                "corosync >/dev/null && pacemakerd </dev/null >/var/log/pacemakerd.log 2>&1 &"
            }
            Manager::Heartbeat => "/usr/libexec/heartbeat/heartbeat >/dev/null 2>&1",
        }
    }

    /// Where it logs.
    pub(super) fn log(self) -> &'static str {
        match self {
            Manager::Keepalived => "/var/log/keepalived.log",
            Manager::Pacemaker => "/var/log/pacemaker/pacemaker.log",
            Manager::Heartbeat => "/var/log/ha.log",
        }
    }
}
