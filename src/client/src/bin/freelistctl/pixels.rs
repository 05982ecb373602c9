// SPDX-License-Identifier: MIT OR Apache-2.0

//! Pictures as pixels, for tests of what is drawn.

use resvg::tiny_skia::{Pixmap, Transform};
use resvg::usvg::{Options, Tree};

/// A rendered picture, without its text.
pub(crate) struct Pixels(Pixmap);

impl Pixels {
    /// Renders a picture. Panics if it is not one.
    pub(crate) fn of(svg: &str) -> Self {
        let tree = Tree::from_str(svg, &Options::default()).expect("it is an SVG");
        let size = tree.size().to_int_size();
        let pixmap = Pixmap::new(size.width(), size.height());
        let mut pixmap = pixmap.expect("it has a size");
        resvg::render(&tree, Transform::default(), &mut pixmap.as_mut());
        Self(pixmap)
    }

    /// Returns the colour at a position, as `#rrggbb`.
    pub(crate) fn at(&self, x: f64, y: f64) -> String {
        let pixel = self.0.pixel(x as u32, y as u32);
        let pixel = pixel.expect("the place is in the picture").demultiply();
        format!(
            "#{:02x}{:02x}{:02x}",
            pixel.red(),
            pixel.green(),
            pixel.blue()
        )
    }
}
