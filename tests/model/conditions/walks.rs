//! Walks of scalable mode (SFS, SSS, SGN).

use super::guest::Mode::{First, Nested, PassThrough, Second};
use super::guest::{BEYOND, Guest, NOWHERE, READ, WITH_PASID, WRITE};
use super::{Condition, condition};
use crate::reference::Request;
use crate::world::{FIRST_SETS, READ_ONLY_FIRST, READ_ONLY_SECOND, SECOND_SETS, table};

pub fn conditions() -> Vec<Condition> {
    const EXECUTE: Request = Request {
        execute: true,
        ..WITH_PASID
    };
    const PRIVILEGED: Request = Request {
        privileged: true,
        ..WITH_PASID
    };
    vec![
        condition(
            "SFS.1",
            0x70,
            "A first-stage entry below the top cannot be read.",
        )
        .case("first-stage table outside RAM", First, READ, |g| {
            g.poke(Guest::first(3), NOWHERE | 7);
        }),
        condition("SFS.2", 0x71, "A first-stage entry is not present.")
            .case("first-stage leaf not present", First, READ, |g| {
                g.clear(Guest::first(1), 1);
            })
            .case("first-stage table not present", First, READ, |g| {
                g.clear(Guest::first(4), 1);
            })
            .case("nested first-stage leaf not present", Nested, READ, |g| {
                g.clear(Guest::first(1), 1);
            }),
        condition(
            "SFS.3",
            0x72,
            "A reserved field of a first-stage entry is not 0.",
        )
        .qemu("After permissions are checked.")
        .case("PS at level 4 of the first stage", First, READ, |g| {
            g.set(Guest::first(4), 1 << 7);
        })
        .case("misaligned 2 MiB first-stage page", First, READ, |g| {
            g.poke(Guest::first(2), 0x2087);
        })
        .case("misaligned 1 GiB first-stage page", First, READ, |g| {
            g.poke(Guest::first(3), 0x20_0087);
        })
        .case(
            "1 GiB first-stage page without CAP.FS1GP",
            First,
            READ,
            |g| {
                g.setup.features.set_first_stage_1g(false);
                g.poke(Guest::first(3), 0x87);
            },
        )
        .case("first-stage page beyond the width", First, READ, |g| {
            g.set(Guest::first(1), BEYOND);
        })
        .case("reserved before permission", First, WRITE, |g| {
            g.clear(Guest::first(2), 2);
            g.set(Guest::first(1), BEYOND);
        }),
        condition("SFS.4", 0x73, "The top first-stage entry cannot be read.")
            .case("top first-stage table outside RAM", First, READ, |g| {
                g.poke(g.entry() + 16, NOWHERE);
            })
            .case(
                "nested top first-stage table outside RAM",
                Nested,
                READ,
                |g| {
                    g.poke(g.entry() + 16, 40 << 12);
                },
            ),
        condition(
            "SFS.5",
            0x74,
            "Nested: the address of a first-stage table is beyond the second stage's \
             width.",
        )
        .qemu("No nested translation.")
        .case(
            "first-stage table beyond the second stage",
            Nested,
            READ,
            |g| {
                g.poke(g.entry(), table(SECOND_SETS[0], 3) | 3 << 6 | 1 << 2 | 1);
                g.poke(Guest::first(3), 1 << 40 | 7);
            },
        )
        .case(
            "top first-stage table beyond the second stage",
            Nested,
            READ,
            |g| {
                g.poke(g.entry(), table(SECOND_SETS[0], 3) | 3 << 6 | 1 << 2 | 1);
                g.poke(g.entry() + 16, 1 << 40);
            },
        ),
        condition(
            "SFS.6",
            0x75,
            "Nested: the second stage denies reading the top first-stage entry.",
        )
        .qemu("No nested translation.")
        .case("top first-stage table unreadable", Nested, READ, |g| {
            g.clear(Guest::second_of_table(4), 1);
        })
        .case("top first-stage table unmapped", Nested, READ, |g| {
            g.poke(Guest::second_of_table(4), 0);
        }),
        condition(
            "SFS.7",
            0x76,
            "Nested: the second stage denies reading another first-stage entry.",
        )
        .qemu("No nested translation.")
        .case("first-stage table unreadable", Nested, READ, |g| {
            g.clear(Guest::second_of_table(2), 1);
        })
        .case("first-stage table unmapped", Nested, READ, |g| {
            g.poke(Guest::second_of_table(1), 0);
        }),
        condition(
            "SFS.8",
            0x77,
            "Nested: the second stage denies setting A or D in a first-stage entry.",
        )
        .qemu("No nested translation.")
        .case("A in a read-only first-stage table", Nested, READ, |g| {
            g.clear(Guest::second_of_table(3), 2);
        })
        .case("D in a read-only first-stage table", Nested, WRITE, |g| {
            g.set(Guest::first(1), 0x20);
            g.clear(Guest::second_of_table(1), 2);
        }),
        condition(
            "SFS.9",
            0x90,
            "A, EA or D of a first-stage entry is to be set, and PWSNP=0.",
        )
        .qemu("PWSNP is ignored.")
        .case("A without PWSNP", First, READ, |g| {
            g.clear(g.entry() + 8, 1 << 23);
        })
        .case("D without PWSNP", First, WRITE, |g| {
            for level in 1..=4 {
                g.set(Guest::first(level), 0x20);
            }
            g.clear(g.entry() + 8, 1 << 23);
        })
        .case("EA without PWSNP", First, READ, |g| {
            for level in 1..=4 {
                g.set(Guest::first(level), 0x20);
            }
            g.set(g.entry() + 16, 1 << 7);
            g.clear(g.entry() + 8, 1 << 23);
        }),
        condition(
            "SFS.10",
            0x91,
            "A, EA or D of a first-stage entry cannot be set.",
        )
        .case("A in read-only RAM", First, READ, |g| {
            g.poke(Guest::first(2), READ_ONLY_FIRST | 7);
        }),
        condition(
            "SSS.1",
            0x78,
            "A second-stage entry below the top cannot be read.",
        )
        .qemu("07 (03 at the top).")
        .case(
            "scalable second-stage table outside RAM",
            Second,
            READ,
            |g| {
                g.poke(Guest::second(3), NOWHERE | 3);
            },
        )
        .case("nested second-stage table outside RAM", Nested, READ, |g| {
            g.poke(Guest::second(2), NOWHERE | 3);
        }),
        condition(
            "SSS.2",
            0x79,
            "The second stage denies reading or writing, or does not map the page.",
        )
        .qemu("05, 06.")
        .case("scalable write without W", Second, WRITE, |g| {
            g.clear(Guest::second(1), 2);
        })
        .case("scalable read without R", Second, READ, |g| {
            g.clear(Guest::second(3), 1);
        })
        .case("scalable page not present", Second, READ, |g| {
            g.poke(Guest::second(1), 0);
        })
        .case("nested write without W", Nested, WRITE, |g| {
            g.clear(Guest::second_of_page(), 2);
        })
        .case("nested page not present", Nested, READ, |g| {
            g.poke(Guest::second_of_page(), 0);
        }),
        condition(
            "SSS.3",
            0x7a,
            "A reserved field of a second-stage entry is not 0.",
        )
        .qemu("0C, after permissions are checked.")
        .case("scalable bit 11 of a table's entry", Second, READ, |g| {
            g.set(Guest::second(2), 1 << 11);
        })
        .case("scalable misaligned 2 MiB page", Second, READ, |g| {
            g.poke(Guest::second(2), 0x1083);
        })
        .case("scalable 1 GiB page without CAP.SSLPS", Second, READ, |g| {
            g.setup.features.set_second_stage_1g(false);
            g.poke(Guest::second(3), 0x83);
        })
        .case("nested, of the table's page", Nested, READ, |g| {
            g.set(Guest::second_of_table(4), BEYOND);
        })
        .case("nested, of the page", Nested, READ, |g| {
            g.set(Guest::second_of_page(), BEYOND);
        }),
        condition("SSS.4", 0x7b, "The top second-stage entry cannot be read.")
            .qemu("03.")
            .case(
                "scalable top second-stage table outside RAM",
                Second,
                READ,
                |g| {
                    g.poke(g.entry(), NOWHERE | 2 << 6 | 2 << 2 | 1);
                },
            )
            .case(
                "nested top second-stage table outside RAM",
                Nested,
                READ,
                |g| {
                    g.poke(g.entry(), NOWHERE | 3 << 6 | 2 << 2 | 1);
                },
            ),
        condition(
            "SSS.5",
            0x7c,
            "A or D of a second-stage entry is to be set (SSADE=1), and PWSNP=0.",
        )
        .qemu("SSADE is ignored.")
        .case("second-stage A without PWSNP", Second, READ, |g| {
            g.set(g.entry(), 1 << 9);
            g.clear(g.entry() + 8, 1 << 23);
        })
        .case("second-stage D without PWSNP", Second, WRITE, |g| {
            for level in 1..=4 {
                g.set(Guest::second(level), 1 << 8);
            }
            g.set(g.entry(), 1 << 9);
            g.clear(g.entry() + 8, 1 << 23);
        }),
        condition(
            "SSS.6",
            0x7d,
            "A or D of a second-stage entry cannot be set (SSADE=1).",
        )
        .qemu("SSADE is ignored.")
        .case("second-stage A in read-only RAM", Second, READ, |g| {
            g.set(g.entry(), 1 << 9);
            g.poke(Guest::second(2), READ_ONLY_SECOND | 3);
        }),
        condition(
            "SGN.1",
            0x80,
            "The address is not canonical (first stage, nested).",
        )
        .case(
            "address beyond 47 bits",
            First,
            Request {
                address: 1 << 47,
                ..READ
            },
            |_| (),
        )
        .case(
            "nested address beyond 47 bits",
            Nested,
            Request {
                address: 1 << 63,
                ..READ
            },
            |_| (),
        )
        .case(
            "address beyond 56 bits",
            First,
            Request {
                address: 1 << 56,
                ..READ
            },
            |g| {
                g.setup.address_width = 57;
                g.poke(g.entry() + 16, table(FIRST_SETS[0], 5) | 1 << 2);
            },
        ),
        condition("SGN.2", 0x81, "A user request to a supervisor page.")
            .case("U/S of the leaf", First, READ, |g| {
                g.clear(Guest::first(1), 4);
            })
            .case("U/S above", First, READ, |g| g.clear(Guest::first(3), 4))
            .case("nested U/S", Nested, READ, |g| g.clear(Guest::first(1), 4)),
        condition(
            "SGN.3",
            0x82,
            "An execute request that is not permitted: XD with NXE, a user page for a \
             supervisor with SMEP.",
        )
        .qemu("No execute requests.")
        .case("XD with NXE", First, EXECUTE, |g| {
            g.set(g.entry() + 16, 1 << 1 | 1 << 5);
            g.set(Guest::first(1), 1 << 63);
        })
        .case(
            "SMEP",
            First,
            Request {
                privileged: true,
                ..EXECUTE
            },
            |g| {
                g.set(g.entry() + 16, 0b11 | 1 << 6);
            },
        ),
        condition(
            "SGN.4",
            0x83,
            "The address is beyond the width (second stage, pass-through).",
        )
        .qemu("04.")
        .case(
            "scalable address beyond 4 levels",
            Second,
            Request {
                address: BEYOND,
                ..READ
            },
            |_| (),
        )
        .case(
            "scalable address beyond 3 levels",
            Second,
            Request {
                address: 1 << 39,
                ..READ
            },
            |g| {
                g.poke(g.entry(), table(SECOND_SETS[0], 3) | 2 << 6 | 1 << 2 | 1);
            },
        )
        .case(
            "pass-through beyond the width",
            PassThrough,
            Request {
                address: BEYOND,
                ..READ
            },
            |_| (),
        ),
        condition(
            "SGN.5",
            0x84,
            "Nested: the address of the page is beyond the second stage's width.",
        )
        .qemu("No nested translation.")
        .case("page beyond the second stage", Nested, READ, |g| {
            g.poke(g.entry(), table(SECOND_SETS[0], 3) | 3 << 6 | 1 << 2 | 1);
            g.poke(Guest::first(1), 1 << 40 | 7);
        }),
        condition(
            "SGN.6",
            0x85,
            "A write without write permission of the first stage.",
        )
        .case("R/W of the leaf", First, WRITE, |g| {
            g.clear(Guest::first(1), 2);
        })
        .case("R/W above", First, WRITE, |g| g.clear(Guest::first(2), 2))
        .case("nested R/W", Nested, WRITE, |g| g.clear(Guest::first(1), 2))
        .case(
            "privileged with WPE",
            First,
            Request {
                write: true,
                ..PRIVILEGED
            },
            |g| {
                g.set(g.entry() + 16, 1 | 1 << 4);
                g.clear(Guest::first(1), 2);
            },
        ),
        condition(
            "SGN.7",
            0x86,
            "A read without read permission of the first stage.",
        )
        .never("a first-stage page that is present can be read"),
        condition("SGN.8", 0x87, "The result is in the interrupt range.")
            .qemu("Also for every other address of a large page that overlaps the range.")
            .case(
                "first-stage page in the interrupt range",
                First,
                READ,
                |g| {
                    g.poke(Guest::first(1), 0xfee0_0007);
                },
            )
            .case(
                "second-stage page in the interrupt range",
                Second,
                READ,
                |g| {
                    g.poke(Guest::second(1), 0xfeef_f003);
                },
            )
            .case("nested page in the interrupt range", Nested, READ, |g| {
                g.poke(Guest::second_of_page(), 0xfee1_0003);
            })
            .case(
                "large page over the interrupt range",
                First,
                Request {
                    address: 0x3ee0_1000,
                    ..READ
                },
                |g| g.poke(Guest::first(3), 0xc000_0087),
            ),
        condition("SGN.9", 0x88, "Not public.").never("no public source says what it means"),
        condition("SGN.10", 0x89, "Not public.").never("no public source says what it means"),
    ]
}
