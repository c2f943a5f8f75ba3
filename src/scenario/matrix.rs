//! Lists multiply: the dimensions of an experiment's matrix and every combination of them.

use std::fmt;
use std::time::Duration;

use super::source::Span;

/// One dimension of a matrix: at least one value, each with its place in the file.
#[derive(Debug, Clone)]
pub(super) struct Dimension<T> {
    values: Vec<(T, Span)>,
    /// Whether the file gave a list, and not a scalar or nothing.
    listed: bool,
}

impl<T: Clone + PartialEq + fmt::Debug> Dimension<T> {
    /// A scalar, or a default: every value stands at `span`.
    pub(super) fn unlisted(values: &[T], span: Span) -> Self {
        Self { values: values.iter().map(|value| (value.clone(), span.clone())).collect(), listed: false }
    }

    /// A list that is still to be filled.
    pub(super) fn listed() -> Self {
        Self { values: Vec::new(), listed: true }
    }

    pub(super) fn push(&mut self, value: T, span: Span) {
        self.values.push((value, span));
    }

    pub(super) fn contains(&self, value: &T) -> bool {
        self.values.iter().any(|(known, _)| known == value)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.values.len()
    }

    /// The value at a position that [`product`] gave.
    pub(super) fn at(&self, index: usize) -> &T {
        &self.values[index].0
    }

    /// Every value with its place.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&T, &Span)> {
        self.values.iter().map(|(value, span)| (value, span))
    }

    /// Where the value at a position stands.
    pub(super) fn span_at(&self, index: usize) -> Span {
        self.values[index].1.clone()
    }

    /// The part that this dimension adds to a case's id: `/` and what `render` makes of the value where the file
    /// lists more than one, nothing where there is nothing to tell apart.
    pub(super) fn suffix(&self, index: usize, render: impl Fn(&T) -> String) -> String {
        if self.listed && self.values.len() > 1 { format!("/{}", render(self.at(index))) } else { String::new() }
    }
}

/// Every combination of positions, the last dimension fastest, as nested loops would give them.
pub(super) fn product<const N: usize>(lengths: [usize; N]) -> impl Iterator<Item = [usize; N]> {
    let total: usize = lengths.iter().product();
    (0..total).map(move |mut rest| {
        let mut positions = [0; N];
        for (position, length) in positions.iter_mut().zip(lengths).rev() {
            *position = rest % length;
            rest /= length;
        }
        positions
    })
}

/// A duration in the letters that a case's id may have: `1.5s`, `250ms`, `10us`.
pub(super) fn plain(duration: Duration) -> String {
    format!("{duration:?}").replace('µ', "u")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_product_is_that_of_nested_loops() {
        let all: Vec<[usize; 3]> = product([2, 1, 3]).collect();
        assert_eq!(all, [[0, 0, 0], [0, 0, 1], [0, 0, 2], [1, 0, 0], [1, 0, 1], [1, 0, 2]]);
        assert_eq!(product([2, 0]).count(), 0);
    }

    #[test]
    fn only_a_list_of_several_marks_the_id() {
        let scalar = Dimension::unlisted(&[7], 0..1);
        assert_eq!(scalar.suffix(0, |value| format!("s{value}")), "");
        let mut list = Dimension::listed();
        list.push(1, 0..1);
        assert_eq!(list.suffix(0, |value| format!("s{value}")), "");
        list.push(4, 0..1);
        assert_eq!(list.suffix(1, |value| format!("s{value}")), "/s4");
    }
}
