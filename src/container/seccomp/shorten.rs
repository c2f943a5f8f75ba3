//! Shortens a filter without changing what it answers: a pure function.
//!
//! seccompiler spends five instructions on a call that one comparison tells, for its jumps lead to jumps and each call
//! has returns of its own. The kernel converts, compiles and walks a filter anew at every start. Called by [`super`].

use seccompiler::{BpfProgram, sock_filter};

/// The class of an instruction is in its lowest three bits.
const CLASS: u16 = 0x07;
const CLASS_JUMP: u16 = 0x05;
const CLASS_RETURN: u16 = 0x06;
/// An unconditional jump; every other one of its class has two ways out.
const JUMP: u16 = 0x05;
/// How far a conditional jump reaches, in instructions that it passes over.
const REACH: usize = u8::MAX as usize;

/// The same answers by fewer instructions: jumps lead straight to where they end, returns are shared, and what is not
/// reached is left out.
///
/// # Panics
/// When a jump leads out of the program; the kernel would refuse it too.
pub(super) fn shorten(program: &[sock_filter]) -> BpfProgram {
    let reached = reached(program);
    // From the last instruction to the first, for all jumps lead forwards: their targets have been placed already.
    let mut short = Backwards { code: Vec::new(), placed: vec![None; program.len()] };
    for at in (0..program.len()).rev().filter(|at| reached[*at]) {
        let step = &program[at];
        let next = match step.code & CLASS {
            CLASS_RETURN => continue,
            CLASS_JUMP => {
                let no = short.target(program, at + 1 + usize::from(step.jf));
                let yes = short.target(program, at + 1 + usize::from(step.jt));
                // Either may have been put in between by the other.
                let (yes, no) = (short.distance(yes), short.distance(no));
                sock_filter { jt: yes, jf: no, ..step.clone() }
            }
            _ => {
                short.follow(program, at + 1);
                step.clone()
            }
        };
        short.placed[at] = Some(short.code.len());
        short.code.push(next);
    }
    short.code.reverse();
    short.code
}

/// The instruction that a jump to `at` ends at.
fn end_of_jumps(program: &[sock_filter], mut at: usize) -> usize {
    while program[at].code == JUMP {
        at += 1 + program[at].k as usize;
    }
    at
}

/// Which instructions can be reached from the first one, jumps without a condition left out.
fn reached(program: &[sock_filter]) -> Vec<bool> {
    let mut reached = vec![false; program.len()];
    let mut ahead = vec![end_of_jumps(program, 0)];
    while let Some(at) = ahead.pop() {
        if std::mem::replace(&mut reached[at], true) {
            continue;
        }
        let step = &program[at];
        let ways: &[usize] = match step.code & CLASS {
            CLASS_RETURN => &[],
            CLASS_JUMP => &[usize::from(step.jt), usize::from(step.jf)],
            _ => &[0],
        };
        ahead.extend(ways.iter().map(|way| end_of_jumps(program, at + 1 + way)));
    }
    reached
}

/// A program that grows from its end.
struct Backwards {
    /// The last instruction first.
    code: Vec<sock_filter>,
    /// Where in `code` the old program's instructions are. Returns have no place of their own.
    placed: Vec<Option<usize>>,
}

impl Backwards {
    /// The place of a conditional jump's target, within reach of the next two instructions.
    fn target(&mut self, program: &[sock_filter], at: usize) -> usize {
        let end = end_of_jumps(program, at);
        let near = self.code.len().saturating_sub(REACH - 1);
        let place = match self.placed[end] {
            Some(place) => Some(place).filter(|place| *place >= near),
            None => (near..self.code.len()).rev().find(|place| self.code[*place] == program[end]),
        };
        place.unwrap_or_else(|| {
            self.append(program, end);
            self.code.len() - 1
        })
    }

    /// Sees to it that the instruction placed last is the one at `at`, or leads there.
    fn follow(&mut self, program: &[sock_filter], at: usize) {
        let end = end_of_jumps(program, at);
        let last = self.code.len().checked_sub(1);
        let is_last = match self.placed[end] {
            Some(place) => Some(place) == last,
            None => last.is_some_and(|last| self.code[last] == program[end]),
        };
        if !is_last {
            self.append(program, end);
        }
    }

    /// A jump to what is placed, or a return once more.
    fn append(&mut self, program: &[sock_filter], end: usize) {
        let step = match self.placed[end] {
            Some(place) => sock_filter { code: JUMP, jt: 0, jf: 0, k: (self.code.len() - place - 1) as u32 },
            None => program[end].clone(),
        };
        self.code.push(step);
    }

    /// How many instructions a jump that is placed next passes over.
    fn distance(&self, place: usize) -> u8 {
        u8::try_from(self.code.len() - place - 1).expect("`target` kept it within reach")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALLOW: sock_filter = sock_filter { code: CLASS_RETURN, jt: 0, jf: 0, k: 1 };
    const DENY: sock_filter = sock_filter { code: CLASS_RETURN, jt: 0, jf: 0, k: 2 };

    fn equal(k: u32, jt: u8, jf: u8) -> sock_filter {
        sock_filter { code: 0x15, jt, jf, k }
    }

    fn jump(k: u32) -> sock_filter {
        sock_filter { code: JUMP, jt: 0, jf: 0, k }
    }

    #[test]
    fn jumps_to_jumps_and_second_returns_go() {
        let load = || sock_filter { code: 0x20, jt: 0, jf: 0, k: 0 };
        // As seccompiler writes a call.
        let call = |number| [equal(number, 0, 1), jump(1), jump(2), DENY, ALLOW];
        let long = [vec![load()], call(7).into(), call(8).into(), vec![ALLOW]].concat();
        assert_eq!(shorten(&long), [load(), equal(7, 1, 0), equal(8, 0, 1), DENY, ALLOW]);
    }

    #[test]
    fn far_targets_are_reached_by_a_jump() {
        let load = |k| sock_filter { code: 0x20, jt: 0, jf: 0, k };
        let mut long = vec![equal(0, 0, 1), jump(600)];
        long.extend((0..600).map(load));
        long.extend([equal(1, 0, 1), DENY, ALLOW]);
        let short = shorten(&long);
        let way = |jump: u8| 1 + usize::from(jump);
        assert_eq!(short[way(short[0].jf)], load(0));
        let far = way(short[0].jt);
        assert_eq!(short[far].code, JUMP);
        assert_eq!(short[far + 1 + short[far].k as usize], equal(1, 0, 1));
    }
}
