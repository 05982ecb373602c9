// SPDX-License-Identifier: GPL-2.0

//! The bound that all arenas share.

use kernel::macros::kunit_tests;

#[kunit_tests(freelist_limit)]
mod tests {
    use crate::{
        arena::shared_limit::{
            Limits,
            SharedLimit, //
        },
        mm::statistics, //
    };
    use kernel::prelude::*;

    #[test]
    fn parameters_are_in_mib_and_0_is_the_default() -> Result {
        let of = |all, arena| {
            let limits = Limits::from_parameters(all, arena, 50);
            limits.map(|limits| (limits.all, limits.arena))
        };
        let half = statistics::ram_bytes() / 2;
        assert_eq!(of(0, 0)?, (half, half));
        assert_eq!(of(3, 0)?, (3 << 20, 3 << 20));
        assert_eq!(of(3, 2)?, (3 << 20, 2 << 20));
        assert_eq!(of(0, 2)?, (half, 2 << 20));
        assert_eq!(of(u64::MAX, u64::MAX)?, (u64::MAX, u64::MAX));
        Ok(())
    }

    #[test]
    fn a_slack_is_at_most_1000_or_without_a_bound() -> Result {
        let of = |slack| Limits::from_parameters(0, 0, slack).map(|limits| limits.slack_permille);
        for slack in [0, 1, 50, 1000] {
            assert_eq!(of(slack)?, Some(slack));
        }
        assert_eq!(of(u32::MAX)?, None);
        for slack in [1001, 1 << 31, u32::MAX - 1] {
            assert_eq!(of(slack), Err(EINVAL));
        }
        Ok(())
    }

    #[test]
    fn it_gives_exactly_what_it_has() -> Result {
        let limit = SharedLimit::new(100)?;
        assert!(limit.take(60));
        assert!(!limit.take(41));
        assert!(limit.take(40));
        assert!(!limit.take(1));
        assert!(!limit.take(u64::MAX));
        limit.give(60);
        assert!(limit.take(60));
        limit.give(100);
        assert!(limit.is_unused());
        Ok(())
    }
}
