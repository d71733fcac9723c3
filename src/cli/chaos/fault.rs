//! What can be broken, by name.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use serde::Serialize;

use super::dice::Dice;

/// One kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Fault {
    Supervisor,
    Container,
    Tmux,
    Pane,
    Network,
    Freeze,
    Clock,
    Disk,
    Limit,
    Engine,
}

impl Fault {
    pub(super) const ALL: [Self; 10] = [
        Self::Supervisor,
        Self::Container,
        Self::Tmux,
        Self::Pane,
        Self::Network,
        Self::Freeze,
        Self::Clock,
        Self::Disk,
        Self::Limit,
        Self::Engine,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Supervisor => "supervisor",
            Self::Container => "container",
            Self::Tmux => "tmux",
            Self::Pane => "pane",
            Self::Network => "network",
            Self::Freeze => "freeze",
            Self::Clock => "clock",
            Self::Disk => "disk",
            Self::Limit => "limit",
            Self::Engine => "engine",
        }
    }

    pub(super) fn what(self) -> &'static str {
        match self {
            Self::Supervisor => "supervisor killed (kill -9), started again",
            Self::Container => "container killed (docker kill)",
            Self::Tmux => "tmux server killed",
            Self::Pane => "client in a pane killed (kill -9)",
            Self::Network => "container off its network for a while",
            Self::Freeze => "agent's processes stopped (SIGSTOP) for a while",
            Self::Clock => "wall clock off by an hour for a while",
            Self::Disk => "state disk full for a while",
            Self::Limit => "usage limit of the credential in use",
            Self::Engine => "Docker daemon restarted",
        }
    }

    /// Does it hit one agent, or all of them?
    pub(super) fn hits_one(self) -> bool {
        matches!(
            self,
            Self::Container | Self::Pane | Self::Network | Self::Freeze | Self::Limit
        )
    }

    /// Can the other one come while this one lasts? What goes through the engine needs it.
    pub(super) fn goes_with(self, other: Self) -> bool {
        let needs_engine = |fault| matches!(fault, Self::Container | Self::Network | Self::Freeze);
        self != other
            && !(self == Self::Engine && needs_engine(other))
            && !(other == Self::Engine && needs_engine(self))
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Fault {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|fault| fault.name() == text)
            .ok_or_else(|| {
                let names: Vec<&str> = Self::ALL.into_iter().map(Self::name).collect();
                format!("there is no such fault; there are: {}", names.join(", "))
            })
    }
}

/// What stands in the way of some faults.
#[derive(Clone, Copy, Debug)]
pub(super) struct Means {
    pub(super) is_root: bool,
    pub(super) own_engine: bool,
}

/// A fault that is not made, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct LeftOut {
    pub(super) fault: Fault,
    pub(super) why: &'static str,
}

/// The faults to make: those wanted, or all; and those of them that cannot be made here.
pub(super) fn possible(wanted: &[Fault], means: Means) -> (Vec<Fault>, Vec<LeftOut>) {
    let wanted: BTreeSet<Fault> = if wanted.is_empty() {
        Fault::ALL.into_iter().collect()
    } else {
        wanted.iter().copied().collect()
    };
    let mut faults = Vec::new();
    let mut left_out = Vec::new();
    for fault in wanted {
        let why = match fault {
            Fault::Disk if !means.is_root => Some("only root can mount a small disk"),
            Fault::Engine if !means.own_engine => {
                Some("the engine may be in use by others; `--own-engine` (as root) starts one")
            }
            _ => None,
        };
        match why {
            Some(why) => left_out.push(LeftOut { fault, why }),
            None => faults.push(fault),
        }
    }
    (faults, left_out)
}

/// One fault, now and then with a second one that comes before the first is over. Every fault comes
/// once before any comes twice: `bag` holds what is still to come.
pub(super) fn draw(dice: &mut Dice, faults: &[Fault], bag: &mut Vec<Fault>) -> Vec<Fault> {
    let mut drawn: Vec<Fault> = Vec::new();
    let wanted = if dice.one_in(4) { 2 } else { 1 };
    while drawn.len() < wanted {
        if bag.is_empty() {
            bag.extend_from_slice(faults);
        }
        let fitting: Vec<Fault> = bag
            .iter()
            .copied()
            .filter(|fault| drawn.iter().all(|first| first.goes_with(*fault)))
            .collect();
        let Some(fault) = dice.pick(&fitting).copied() else {
            break;
        };
        bag.retain(|other| *other != fault);
        drawn.push(fault);
    }
    drawn
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_read_back_and_others_are_refused() {
        for fault in Fault::ALL {
            assert_eq!(fault.name().parse(), Ok(fault));
        }
        assert!("docker".parse::<Fault>().unwrap_err().contains("engine"));
    }

    #[test]
    fn what_cannot_be_made_is_left_out_with_a_reason() {
        let means = Means {
            is_root: false,
            own_engine: false,
        };
        let (faults, left_out) = possible(&[], means);
        assert_eq!(faults.len() + left_out.len(), Fault::ALL.len());
        let names: Vec<Fault> = left_out.iter().map(|left| left.fault).collect();
        assert_eq!(names, [Fault::Disk, Fault::Engine]);
        let (faults, left_out) = possible(&[Fault::Tmux, Fault::Tmux], means);
        assert_eq!((faults.as_slice(), left_out.len()), (&[Fault::Tmux][..], 0));
    }

    #[test]
    fn every_fault_comes_once_before_any_comes_twice() {
        for seed in 0..50 {
            let mut dice = Dice::new(seed);
            let mut bag = Vec::new();
            let mut first = Vec::new();
            while first.len() < Fault::ALL.len() {
                let drawn = draw(&mut dice, &Fault::ALL, &mut bag);
                assert!((1..=2).contains(&drawn.len()));
                if let [a, b] = drawn[..] {
                    assert!(a.goes_with(b) && b.goes_with(a));
                }
                first.extend(drawn);
            }
            first.truncate(Fault::ALL.len());
            let kinds: BTreeSet<Fault> = first.iter().copied().collect();
            assert_eq!(kinds.len(), Fault::ALL.len(), "seed {seed}: {first:?}");
        }
    }

    #[test]
    fn a_single_fault_comes_alone() {
        let mut dice = Dice::new(3);
        let mut bag = Vec::new();
        for _ in 0..20 {
            assert_eq!(draw(&mut dice, &[Fault::Tmux], &mut bag), [Fault::Tmux]);
        }
    }
}
