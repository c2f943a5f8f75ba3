//! From what every system call gets to a filter's instructions: pure functions. Called by [`super::profile`].
//!
//! Numbers that get the same answer next to each other are one range, and a binary search finds the range: the kernel
//! walks a filter for every number when it is installed.

use std::collections::BTreeMap;

use seccompiler::{BpfProgram, sock_filter};

use super::profile::ProfileError;
use super::shorten::shorten;

/// What a system call gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The process is killed.
    KillProcess,
    /// The thread is killed.
    KillThread,
    /// The thread gets SIGSYS.
    Trap,
    /// It fails with this errno.
    Errno(u16),
    /// A tracer is asked; without one it fails with ENOSYS.
    Trace(u16),
    /// It is done and noted.
    Log,
    /// It is done.
    Allow,
}

impl Verdict {
    /// The kernel's precedence: the lower, the stricter.
    pub(super) fn rank(self) -> u8 {
        match self {
            Self::KillProcess => 0,
            Self::KillThread => 1,
            Self::Trap => 2,
            Self::Errno(_) => 3,
            Self::Trace(_) => 4,
            Self::Log => 5,
            Self::Allow => 6,
        }
    }

    /// SECCOMP_RET_* with its data.
    pub(super) fn value(self) -> u32 {
        match self {
            Self::KillProcess => 0x8000_0000,
            Self::KillThread => 0,
            Self::Trap => 0x0003_0000,
            Self::Errno(errno) => 0x0005_0000 | u32::from(errno),
            Self::Trace(data) => 0x7ff0_0000 | u32::from(data),
            Self::Log => 0x7ffc_0000,
            Self::Allow => 0x7fff_0000,
        }
    }
}

/// How an argument is compared, without sign and with all 64 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operator {
    NotEqual,
    Less,
    LessOrEqual,
    Equal,
    GreaterOrEqual,
    Greater,
    /// Equal in the bits of the mask.
    Masked(u64),
}

/// A condition on an argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Condition {
    /// Which argument, from 0 to 5.
    pub(super) index: u8,
    pub(super) operator: Operator,
    pub(super) value: u64,
}

/// Conditions that must all hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rule {
    pub(super) conditions: Vec<Condition>,
}

/// What one system call gets: of the first rule that holds, else the rest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Decision {
    pub(super) rules: Vec<(Verdict, Rule)>,
    pub(super) otherwise: Verdict,
}

impl Decision {
    fn always(verdict: Verdict) -> Self {
        Self { rules: Vec::new(), otherwise: verdict }
    }
}

/// What the calls of one architecture get.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Answers {
    /// AUDIT_ARCH_*.
    pub(super) audit: u32,
    /// Whether numbers from 2³⁰ on are x32's, which always answer ENOSYS.
    pub(super) has_x32: bool,
    /// By number.
    pub(super) decisions: BTreeMap<u32, Decision>,
    /// What a call gets that is not among them.
    pub(super) default: Verdict,
    /// The last number that is known: later ones answer ENOSYS.
    pub(super) last_known: Option<u32>,
}

/// What all calls get; those of an architecture that is not among them kill the process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Program {
    pub(super) arches: Vec<Answers>,
}

const LOAD: u16 = 0x20;
const AND: u16 = 0x54;
const JUMP: u16 = 0x05;
const JUMP_IF_EQUAL: u16 = 0x15;
const JUMP_IF_GREATER: u16 = 0x25;
const JUMP_IF_GREATER_OR_EQUAL: u16 = 0x35;
const RETURN: u16 = 0x06;

const OFFSET_OF_NUMBER: u32 = 0;
const OFFSET_OF_ARCH: u32 = 4;
const OFFSET_OF_ARGUMENTS: u32 = 16;
/// Where x32's numbers begin.
const X32: u32 = 0x4000_0000;
/// BPF_MAXINSNS.
const MOST_INSTRUCTIONS: usize = 4096;

fn step(code: u16, k: u32) -> sock_filter {
    sock_filter { code, jt: 0, jf: 0, k }
}

/// A jump over so many instructions where the condition holds, else over so many.
fn branch(code: u16, k: u32, jt: u8, jf: u8) -> sock_filter {
    sock_filter { code, jt, jf, k }
}

fn give(verdict: Verdict) -> sock_filter {
    step(RETURN, verdict.value())
}

impl Program {
    /// The filter's instructions.
    pub(super) fn code(&self) -> Result<BpfProgram, ProfileError> {
        let mut code = vec![step(LOAD, OFFSET_OF_ARCH)];
        for answers in &self.arches {
            let own = answers.code();
            code.push(branch(JUMP_IF_EQUAL, answers.audit, 1, 0));
            code.push(step(JUMP, own.len() as u32));
            code.extend(own);
        }
        code.push(give(Verdict::KillProcess));
        let short = shorten(&code);
        if short.len() > MOST_INSTRUCTIONS { Err(ProfileError::TooLong(short.len())) } else { Ok(short) }
    }
}

impl Answers {
    fn code(&self) -> BpfProgram {
        let mut code = vec![step(LOAD, OFFSET_OF_NUMBER)];
        code.extend(search(&self.ranges()));
        code
    }

    /// Where each range of numbers with one decision begins, from 0 on.
    fn ranges(&self) -> Vec<(u32, Decision)> {
        let mut ranges: Vec<(u32, Decision)> = Vec::new();
        let mut add = |from: u32, decision: Decision| match ranges.last() {
            Some((_, last)) if *last == decision => {}
            _ => ranges.push((from, decision)),
        };
        let mut next = 0;
        for (number, decision) in &self.decisions {
            if *number > next {
                add(next, Decision::always(self.default));
            }
            add(*number, decision.clone());
            next = number + 1;
        }
        let unknown = Verdict::Errno(libc::ENOSYS as u16);
        add(next, Decision::always(if self.last_known.is_some() { unknown } else { self.default }));
        if self.has_x32 {
            add(X32, Decision::always(unknown));
        }
        ranges
    }
}

/// A binary search for the range of the number that is loaded.
fn search(ranges: &[(u32, Decision)]) -> BpfProgram {
    match ranges {
        [] => Vec::new(),
        [(_, decision)] => decision_code(decision),
        _ => {
            let (lower, upper) = ranges.split_at(ranges.len() / 2);
            let below = search(lower);
            let mut code = vec![branch(JUMP_IF_GREATER_OR_EQUAL, upper[0].0, 0, 1), step(JUMP, below.len() as u32)];
            code.extend(below);
            code.extend(search(upper));
            code
        }
    }
}

fn decision_code(decision: &Decision) -> BpfProgram {
    let mut code = Vec::new();
    for (verdict, rule) in &decision.rules {
        // From its end, for each condition that does not hold jumps over what follows in the rule.
        let mut reversed = vec![give(*verdict)];
        for condition in rule.conditions.iter().rev() {
            let miss = reversed.len() as u32;
            reversed.extend(condition_code(condition, miss).into_iter().rev());
        }
        code.extend(reversed.into_iter().rev());
    }
    code.push(give(decision.otherwise));
    code
}

/// Goes on after its end where the condition holds, else over `miss` instructions more.
fn condition_code(condition: &Condition, miss: u32) -> BpfProgram {
    let offset = OFFSET_OF_ARGUMENTS + 8 * u32::from(condition.index);
    let (low_at, high_at) = if cfg!(target_endian = "little") { (offset, offset + 4) } else { (offset + 4, offset) };
    let (low, high) = (condition.value as u32, (condition.value >> 32) as u32);
    let (load_low, load_high, missed) = (step(LOAD, low_at), step(LOAD, high_at), step(JUMP, miss));
    // Three ways for the high halves: they decide for it, they decide against it, or the low halves decide.
    let ordered = |above_holds: bool, low_code: u16, low_holds: bool| {
        let (above, below) = if above_holds { (4, 2) } else { (3, 3) };
        let (yes, no) = if low_holds { (1, 0) } else { (0, 1) };
        vec![
            load_high.clone(),
            branch(JUMP_IF_GREATER, high, above, 0),
            branch(JUMP_IF_EQUAL, high, 0, below),
            load_low.clone(),
            branch(low_code, low, yes, no),
            missed.clone(),
        ]
    };
    match condition.operator {
        Operator::Equal => {
            vec![load_high, branch(JUMP_IF_EQUAL, high, 0, 2), load_low, branch(JUMP_IF_EQUAL, low, 1, 0), missed]
        }
        Operator::NotEqual => {
            vec![load_high, branch(JUMP_IF_EQUAL, high, 0, 3), load_low, branch(JUMP_IF_EQUAL, low, 0, 1), missed]
        }
        Operator::Greater => ordered(true, JUMP_IF_GREATER, true),
        Operator::GreaterOrEqual => ordered(true, JUMP_IF_GREATER_OR_EQUAL, true),
        Operator::Less => ordered(false, JUMP_IF_GREATER_OR_EQUAL, false),
        Operator::LessOrEqual => ordered(false, JUMP_IF_GREATER, false),
        Operator::Masked(mask) => vec![
            load_high,
            step(AND, (mask >> 32) as u32),
            branch(JUMP_IF_EQUAL, high, 0, 3),
            load_low,
            step(AND, mask as u32),
            branch(JUMP_IF_EQUAL, low, 1, 0),
            missed,
        ],
    }
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What the kernel would answer.
    pub(in super::super) fn run(program: &[sock_filter], arch: u32, number: u32, arguments: [u64; 6]) -> u32 {
        let mut data = Vec::new();
        data.extend(number.to_ne_bytes());
        data.extend(arch.to_ne_bytes());
        data.extend(0_u64.to_ne_bytes());
        arguments.iter().for_each(|argument| data.extend(argument.to_ne_bytes()));
        let (mut at, mut register) = (0, 0);
        loop {
            let step = &program[at];
            at += 1;
            let way = |holds: bool| usize::from(if holds { step.jt } else { step.jf });
            match step.code {
                LOAD => {
                    let bytes = &data[step.k as usize..][..4];
                    register = u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
                }
                AND => register &= step.k,
                JUMP => at += step.k as usize,
                JUMP_IF_EQUAL => at += way(register == step.k),
                JUMP_IF_GREATER => at += way(register > step.k),
                JUMP_IF_GREATER_OR_EQUAL => at += way(register >= step.k),
                RETURN => return step.k,
                other => panic!("instruction {other:#x}"),
            }
        }
    }

    fn holds(condition: &Condition, arguments: [u64; 6]) -> bool {
        let (argument, value) = (arguments[usize::from(condition.index)], condition.value);
        match condition.operator {
            Operator::NotEqual => argument != value,
            Operator::Less => argument < value,
            Operator::LessOrEqual => argument <= value,
            Operator::Equal => argument == value,
            Operator::GreaterOrEqual => argument >= value,
            Operator::Greater => argument > value,
            Operator::Masked(mask) => argument & mask == value,
        }
    }

    /// What it should answer.
    fn expected(answers: &Answers, number: u32, arguments: [u64; 6]) -> Verdict {
        if answers.has_x32 && number >= X32 {
            return Verdict::Errno(libc::ENOSYS as u16);
        }
        if answers.last_known.is_some_and(|last| number > last) {
            return Verdict::Errno(libc::ENOSYS as u16);
        }
        let Some(decision) = answers.decisions.get(&number) else { return answers.default };
        let all = |rule: &Rule| rule.conditions.iter().all(|condition| holds(condition, arguments));
        let first = decision.rules.iter().find(|(_, rule)| all(rule));
        first.map_or(decision.otherwise, |(verdict, _)| *verdict)
    }

    /// Values near each other, in both halves.
    fn value() -> impl Strategy<Value = u64> {
        (0_u64..3, 0_u64..3).prop_map(|(high, low)| high << 32 | low)
    }

    fn verdict() -> impl Strategy<Value = Verdict> {
        prop_oneof![Just(Verdict::Allow), Just(Verdict::Log), (0_u16..5).prop_map(Verdict::Errno), Just(Verdict::Trap)]
    }

    fn rule() -> impl Strategy<Value = Rule> {
        let operator = prop_oneof![
            Just(Operator::NotEqual),
            Just(Operator::Less),
            Just(Operator::LessOrEqual),
            Just(Operator::Equal),
            Just(Operator::GreaterOrEqual),
            Just(Operator::Greater),
            value().prop_map(Operator::Masked),
        ];
        let condition = (0_u8..6, operator, value());
        let condition = condition.prop_map(|(index, operator, value)| Condition { index, operator, value });
        prop::collection::vec(condition, 1..4).prop_map(|conditions| Rule { conditions })
    }

    fn answers() -> impl Strategy<Value = Answers> {
        let decision = (prop::collection::vec((verdict(), rule()), 0..3), verdict())
            .prop_map(|(rules, otherwise)| Decision { rules, otherwise });
        let decisions = prop::collection::btree_map(0_u32..60, decision, 0..40);
        (decisions, verdict(), any::<bool>(), any::<bool>()).prop_map(|(decisions, default, has_x32, bounded)| {
            let last_known = decisions.last_key_value().map(|(number, _)| *number).filter(|_| bounded);
            Answers { audit: 7, has_x32, decisions, default, last_known }
        })
    }

    proptest! {
        #[test]
        fn a_filter_answers_what_was_decided(
            answers in answers(),
            calls in prop::collection::vec((0_u32..64, prop::array::uniform6(value())), 50),
        ) {
            let program = Program { arches: vec![answers.clone(), Answers { audit: 8, ..answers.clone() }] };
            let code = program.code().unwrap();
            for (number, arguments) in calls {
                for number in [number, number | X32] {
                    let answer = expected(&answers, number, arguments).value();
                    prop_assert_eq!(run(&code, 7, number, arguments), answer);
                    prop_assert_eq!(run(&code, 8, number, arguments), answer);
                    prop_assert_eq!(run(&code, 9, number, arguments), Verdict::KillProcess.value());
                }
            }
        }
    }
}
