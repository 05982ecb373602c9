// SPDX-License-Identifier: GPL-2.0-only

//! The limits of an arena and of all arenas, and the address space of an arena.

use kernel::macros::kunit_tests;

#[kunit_tests(freelist_bounds)]
mod tests {
    use crate::{
        arena::bounds::{
            Bounds,
            Change, //
        },
        engine::{
            MAX_PAGES,
            SLACK_PERMILLE, //
        },
        ffi::errno::edquot,
        kunit::{
            held_bytes,
            registry,
            registry_with,
            request,
            PAGE, //
        },
        mm::memcg::Memcg,
    };
    use kernel::prelude::*;

    fn bounds(limit: u64, span: u64) -> Bounds {
        Bounds {
            limit: limit * PAGE,
            span: span * PAGE,
            slack_permille: Some(SLACK_PERMILLE),
        }
    }

    fn limit_and_span(limit: u64, span: u64) -> Change {
        Change {
            limit: Some(limit),
            span: Some(span),
            ..Change::default()
        }
    }

    fn limit(limit: u64) -> Change {
        Change {
            limit: Some(limit),
            ..Change::default()
        }
    }

    fn span_of(span: u64) -> Change {
        Change {
            span: Some(span),
            ..Change::default()
        }
    }

    #[test]
    fn a_request_over_the_limit_is_refused_and_takes_nothing() -> Result {
        let registry = registry_with(100 * PAGE, 100 * PAGE)?;
        let (one, two) = (
            registry.open(Memcg::of_caller())?,
            registry.open(Memcg::of_caller())?,
        );
        let done = |_, _, _| Ok(());
        assert_eq!(one.alloc(&request(101 * PAGE), done), Err(edquot()));
        assert_eq!(one.alloc(&request(60 * PAGE), done), Ok(()));
        assert_eq!(one.alloc(&request(41 * PAGE), done), Err(edquot()));
        // The limit of all arenas together.
        assert_eq!(two.alloc(&request(41 * PAGE), done), Err(edquot()));
        assert_eq!(two.alloc(&request(40 * PAGE), done), Ok(()));
        assert_eq!(two.alloc(&request(32), done), Err(edquot()));
        for arena in [&one, &two] {
            assert_eq!(arena.check(), Ok(()));
        }
        registry.close(&one);
        assert_eq!(two.alloc(&request(60 * PAGE), done), Ok(()));
        registry.close(&two);
        assert!(registry.limit().is_unused());
        Ok(())
    }

    #[test]
    fn the_limit_of_an_arena_is_its_own() -> Result {
        let registry = registry_with(100 * PAGE, 50 * PAGE)?;
        let (one, two) = (
            registry.open(Memcg::of_caller())?,
            registry.open(Memcg::of_caller())?,
        );
        let done = |_, _, _| Ok(());
        assert_eq!(one.bounds().limit, 50 * PAGE);
        assert_eq!(one.alloc(&request(51 * PAGE), done), Err(edquot()));
        assert_eq!(one.alloc(&request(30 * PAGE), done), Ok(()));
        assert_eq!(one.alloc(&request(21 * PAGE), done), Err(edquot()));
        assert_eq!(one.alloc(&request(20 * PAGE), done), Ok(()));
        assert_eq!(one.alloc(&request(1), done), Err(edquot()));
        assert_eq!(two.alloc(&request(50 * PAGE), done), Ok(()));
        registry.close(&one);
        registry.close(&two);
        assert!(registry.limit().is_unused());
        Ok(())
    }

    #[test]
    fn a_lowered_limit_refuses_growth_and_breaks_nothing() -> Result {
        let registry = registry_with(100 * PAGE, 50 * PAGE)?;
        let arena = registry.open(Memcg::of_caller())?;
        let done = |_, _, _| Ok(());
        assert_eq!(arena.alloc(&request(30 * PAGE), done), Ok(()));
        assert_eq!(arena.set_bounds(limit(20 * PAGE), |_| Ok(())), Ok(()));
        assert_eq!(arena.bounds().limit, 20 * PAGE);
        assert_eq!(arena.alloc(&request(PAGE), done), Err(edquot()));
        assert!(arena.live_page(29).is_some());
        // A lower limit reclaims free pages beyond it, and no more.
        assert_eq!(arena.free(0), Ok(()));
        assert_eq!(held_bytes(&arena), 30 * PAGE);
        assert_eq!(arena.set_bounds(limit(20 * PAGE), |_| Ok(())), Ok(()));
        assert_eq!(held_bytes(&arena), 20 * PAGE);
        assert_eq!(arena.alloc(&request(20 * PAGE), done), Ok(()));
        // Any caller may raise the limit up to the default.
        assert_eq!(arena.set_bounds(limit(50 * PAGE), |_| Ok(())), Ok(()));
        assert_eq!(arena.alloc(&request(30 * PAGE), done), Ok(()));
        assert_eq!(arena.alloc(&request(PAGE), done), Err(edquot()));
        assert_eq!(arena.check(), Ok(()));
        registry.close(&arena);
        Ok(())
    }

    #[test]
    fn the_address_space_can_be_set_before_the_first_block() -> Result {
        let registry = registry()?;
        let arena = registry.open(Memcg::of_caller())?;
        let set = |span| arena.set_bounds(span_of(span), |_| Ok(()));
        for wrong in [
            1,
            PAGE - 1,
            PAGE + 1,
            (MAX_PAGES as u64 + 1) * PAGE,
            1 << 63,
        ] {
            assert_eq!(set(wrong), Err(EINVAL));
        }
        assert_eq!(set(u64::from(MAX_PAGES) * PAGE), Ok(()));
        assert_eq!(set(5 * PAGE), Ok(()));
        assert_eq!(arena.bounds().span, 5 * PAGE);
        assert_eq!(
            arena.alloc(&request(6 * PAGE), |_, _, _| Ok(())),
            Err(ENOSPC)
        );
        assert_eq!(arena.alloc(&request(4 * PAGE), |_, _, _| Ok(())), Ok(()));
        assert_eq!(arena.alloc(&request(PAGE), |_, _, _| Ok(())), Ok(()));
        assert_eq!(arena.alloc(&request(PAGE), |_, _, _| Ok(())), Err(ENOSPC));
        assert_eq!(set(6 * PAGE), Err(EINVAL));
        assert_eq!(arena.free(5 * PAGE), Err(EINVAL));
        assert_eq!(arena.check(), Ok(()));
        registry.close(&arena);
        Ok(())
    }

    #[test]
    fn bounds_are_not_set_when_the_answer_fails() -> Result {
        let registry = registry_with(100 * PAGE, 50 * PAGE)?;
        let arena = registry.open(Memcg::of_caller())?;
        let before = arena.bounds();
        let both = |answer: Result| {
            arena.set_bounds(limit_and_span(20 * PAGE, 30 * PAGE), |now| {
                assert!(now == bounds(20, 30));
                answer
            })
        };
        assert_eq!(both(Err(EFAULT)), Err(EFAULT));
        assert!(arena.bounds() == before);
        assert_eq!(both(Ok(())), Ok(()));
        assert!(arena.bounds() == bounds(20, 30));
        // Neither bound is set when one is invalid.
        let wrong = arena.set_bounds(limit_and_span(10 * PAGE, 1), |_| Ok(()));
        assert_eq!(wrong, Err(EINVAL));
        assert!(arena.bounds() == bounds(20, 30));
        registry.close(&arena);
        Ok(())
    }
}
