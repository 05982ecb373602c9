// SPDX-License-Identifier: GPL-2.0-only

//! The limit that all arenas share, and the parameters that set it.

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
    use kernel::{
        page::PAGE_SIZE,
        prelude::*, //
    };

    #[test]
    fn parameters_are_in_mib_and_0_is_the_default() -> Result {
        const MIB: u64 = 1 << 20;
        const PAGE: u64 = PAGE_SIZE as u64;
        let of = |all, arena, lazy| {
            let limits = Limits::from_parameters(all, arena, lazy, 50);
            limits.map(|limits| (limits.all, limits.arena, limits.lazy))
        };
        let default = statistics::ram_bytes() / 5 * 4 / PAGE * PAGE;
        let half = default / 2 / PAGE * PAGE;
        assert_eq!(of(0, 0, 0)?, (default, default, half));
        assert_eq!(of(4, 0, 0)?, (4 * MIB, 4 * MIB, 2 * MIB));
        assert_eq!(of(4, 2, 0)?, (4 * MIB, 2 * MIB, MIB));
        assert_eq!(of(4, 2, 9)?, (4 * MIB, 2 * MIB, 9 * MIB));
        assert_eq!(of(0, 2, 0)?, (default, 2 * MIB, MIB));
        let max = u64::MAX;
        assert_eq!(of(max, max, max)?, (max, max, max));
        Ok(())
    }

    #[test]
    fn a_slack_is_at_most_1000_or_without_a_bound() -> Result {
        let of =
            |slack| Limits::from_parameters(0, 0, 0, slack).map(|limits| limits.slack_permille);
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
    fn a_limit_grants_exactly_its_bytes() -> Result {
        let limit = SharedLimit::new(100)?;
        assert!(limit.try_charge(60));
        assert!(!limit.try_charge(41));
        assert!(limit.try_charge(40));
        assert!(!limit.try_charge(1));
        assert!(!limit.try_charge(u64::MAX));
        limit.uncharge(60);
        assert!(limit.try_charge(60));
        limit.uncharge(100);
        assert!(limit.is_unused());
        Ok(())
    }
}
