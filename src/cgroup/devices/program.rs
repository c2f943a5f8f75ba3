//! From a [`Policy`] to the BPF program that decides as it does: a pure function.
//!
//! The kernel calls the program for each open and mknod with the kind of device, its numbers and the wanted access,
//! and takes 1 for yes and 0 for no. The rules are tried from the last to the first. A rule that permits strikes out
//! what it speaks of, and the program says yes when nothing is left; a rule that forbids any of what is left ends it
//! with no.

use super::{Kind, Policy, Rule};
use crate::sys::bpf::Instruction;

/// What a program returns.
const RESULT: u8 = 0;
/// The context: `struct bpf_cgroup_dev_ctx`, three words of 32 bits.
const CONTEXT: u8 = 1;
const KIND: u8 = 2;
/// The wanted access that no rule has spoken of yet.
const LEFT: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;
const SCRATCH: u8 = 6;

/// 64-bit and 32-bit arithmetic, 32-bit jumps, as in the kernel's `linux/bpf.h`.
const LOAD_WORD: u8 = 0x61;
const MOVE_REGISTER: u8 = 0xbc;
const MOVE: u8 = 0xb4;
const AND: u8 = 0x54;
const SHIFT_RIGHT: u8 = 0x74;
const JUMP_IF_EQUAL: u8 = 0x16;
const JUMP_UNLESS_EQUAL: u8 = 0x56;
const EXIT: u8 = 0x95;

const BLOCK: i32 = 1;
const CHAR: i32 = 2;

fn with_constant(code: u8, register: u8, offset: i16, immediate: i32) -> Instruction {
    Instruction { code, registers: register, offset, immediate }
}

fn with_register(code: u8, destination: u8, source: u8, offset: i16) -> Instruction {
    Instruction { code, registers: destination | source << 4, offset, immediate: 0 }
}

fn answer(yes: bool) -> [Instruction; 2] {
    [with_constant(MOVE, RESULT, 0, i32::from(yes)), with_constant(EXIT, 0, 0, 0)]
}

/// Compiles a policy.
#[must_use]
pub fn compile(policy: &Policy) -> Vec<Instruction> {
    let mut program = vec![
        with_register(LOAD_WORD, KIND, CONTEXT, 0),
        with_register(LOAD_WORD, MAJOR, CONTEXT, 4),
        with_register(LOAD_WORD, MINOR, CONTEXT, 8),
        // The first word has the kind in its low half and the access in its high half.
        with_register(MOVE_REGISTER, LEFT, KIND, 0),
        with_constant(SHIFT_RIGHT, LEFT, 0, 16),
        with_constant(AND, KIND, 0, 0xffff),
    ];
    for rule in policy.rules.iter().rev() {
        let decision = decision(rule);
        let mut conditions = vec![(KIND, if rule.kind == Kind::Char { CHAR } else { BLOCK })];
        // The comparison is of 32 bits, so a number above i32::MAX keeps its meaning.
        conditions.extend(rule.major.map(|major| (MAJOR, major as i32)));
        conditions.extend(rule.minor.map(|minor| (MINOR, minor as i32)));
        for (index, (register, value)) in conditions.iter().enumerate() {
            let skip = conditions.len() - index - 1 + decision.len();
            program.push(with_constant(JUMP_UNLESS_EQUAL, *register, skip as i16, *value));
        }
        program.extend(decision);
    }
    program.extend(answer(policy.allow_by_default));
    program
}

/// What a rule does once the device is its own; it falls through when it has no last word.
fn decision(rule: &Rule) -> Vec<Instruction> {
    let bits = rule.bits() as i32;
    if rule.allow {
        let mut steps = vec![with_constant(AND, LEFT, 0, 0xffff & !bits), with_constant(JUMP_UNLESS_EQUAL, LEFT, 2, 0)];
        steps.extend(answer(true));
        steps
    } else {
        let mut steps = vec![
            with_register(MOVE_REGISTER, SCRATCH, LEFT, 0),
            with_constant(AND, SCRATCH, 0, bits),
            with_constant(JUMP_IF_EQUAL, SCRATCH, 2, 0),
        ];
        steps.extend(answer(false));
        steps
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{Access, DEFAULT, MKNOD, READ, WRITE};
    use super::*;

    /// Runs a program as the kernel would; stops at whatever it does not know.
    fn interpret(program: &[Instruction], access: &Access) -> bool {
        let kind = if access.kind == Kind::Char { 2 } else { 1 };
        let context = [access.bits << 16 | kind, access.major, access.minor];
        let mut registers = [0u32; 11];
        let mut at = 0usize;
        for _ in 0..program.len() {
            let Instruction { code, registers: pair, offset, immediate } = program[at];
            let (to, from) = (usize::from(pair & 15), usize::from(pair >> 4));
            at += 1;
            let jump = |at: usize, yes: bool| if yes { at.checked_add_signed(offset.into()).unwrap() } else { at };
            match code {
                0x61 => {
                    assert_eq!(from, 1, "only the context may be read");
                    registers[to] = context[offset as usize / 4];
                }
                0xbc => registers[to] = registers[from],
                0xb4 => registers[to] = immediate as u32,
                0x54 => registers[to] &= immediate as u32,
                0x74 => registers[to] >>= immediate,
                0x16 => at = jump(at, registers[to] == immediate as u32),
                0x56 => at = jump(at, registers[to] != immediate as u32),
                0x95 => return registers[0] == 1,
                other => panic!("no such instruction: {other:#x}"),
            }
        }
        panic!("the program does not end");
    }

    fn agree(policy: &Policy, access: &Access) {
        assert_eq!(interpret(&compile(policy), access), policy.permits(access), "{access:?} under {policy:?}");
    }

    #[test]
    fn the_default_permits_its_devices_and_nothing_else() {
        let program = compile(&Policy::container());
        for bits in 1..8 {
            for kind in [Kind::Char, Kind::Block] {
                for (major, minor) in [(1, 3), (1, 11), (5, 2), (136, 77), (8, 0), (0, 0), (3, 1)] {
                    let listed = kind == Kind::Char && matches!((major, minor), (1, 3) | (5, 2) | (136, _));
                    let access = Access { kind, major, minor, bits };
                    assert_eq!(interpret(&program, &access), listed, "{access:?}");
                }
            }
        }
    }

    #[test]
    fn an_access_of_two_kinds_may_be_permitted_by_two_rules() {
        let rule = |read, write| Rule { read, write, mknod: false, ..DEFAULT[0] };
        let policy = Policy { allow_by_default: false, rules: vec![rule(true, false), rule(false, true)] };
        let access = Access { kind: Kind::Char, major: 1, minor: 3, bits: READ | WRITE };
        assert!(interpret(&compile(&policy), &access));
        assert!(!interpret(&compile(&policy), &Access { bits: READ | MKNOD, ..access }));
    }

    #[test]
    fn numbers_above_the_signed_range_still_match() {
        let rule = Rule { major: Some(u32::MAX), minor: Some(1 << 31), ..DEFAULT[0] };
        let policy = Policy { allow_by_default: false, rules: vec![rule] };
        agree(&policy, &Access { kind: Kind::Char, major: u32::MAX, minor: 1 << 31, bits: READ });
    }

    fn rules() -> impl Strategy<Value = Vec<Rule>> {
        let number = || prop::option::of(0u32..3);
        let rule = (any::<bool>(), any::<bool>(), number(), number(), any::<[bool; 3]>());
        let rule = rule.prop_map(|(allow, block, major, minor, [read, write, mknod])| {
            let kind = if block { Kind::Block } else { Kind::Char };
            Rule { allow, kind, major, minor, read, write, mknod }
        });
        prop::collection::vec(rule, 0..12)
    }

    proptest! {
        #[test]
        fn every_policy_is_compiled_to_its_meaning(allow_by_default: bool, rules in rules()) {
            let policy = Policy { allow_by_default, rules };
            for kind in [Kind::Char, Kind::Block] {
                for numbers in 0..9 {
                    for bits in 1..8 {
                        agree(&policy, &Access { kind, major: numbers / 3, minor: numbers % 3, bits });
                    }
                }
            }
        }
    }
}
