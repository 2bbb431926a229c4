// SPDX-License-Identifier: GPL-2.0
/*
 * Exports what the library crates define, for driver modules to link against. The list is made from the objects by Kbuild;
 * Rust's v0 mangling gives names that are C identifiers, so EXPORT_SYMBOL_GPL() takes them. The declared type is of no
 * meaning: only the name is used.
 */

#include <linux/export.h>

#define EXPORT_SYMBOL_RUST_GPL(sym) extern int sym; EXPORT_SYMBOL_GPL(sym)

#include "exports_generated.h"
