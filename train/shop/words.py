"""Every word the simulated shop uses: brands, garments, materials, colours, and how shoppers ask for them.

Tables only; `train/shop/catalogue.py` makes products and search texts of them, `train/shop/year.py` the trade. Brands are invented. A `GarmentCut`
says which materials and shapes a kind of garment can really have, so no text names a thing that could not be (no wool sandals).
"""

from __future__ import annotations

from dataclasses import dataclass

SUMMER, ALL_YEAR, WINTER = 1, 0, -1
SEASON_NAMES = {SUMMER: "Spring/Summer", ALL_YEAR: "All year", WINTER: "Autumn/Winter"}
DEPARTMENTS = {"W": "Women", "M": "Men", "U": "Unisex"}
LETTERS = ("XS", "S", "M", "L", "XL")
SIZES = {  # by (system, department); five steps each, so a shopper has one step a system
    ("letter", "W"): LETTERS,
    ("letter", "M"): LETTERS,
    ("shoe", "W"): ("EU 37", "EU 38", "EU 39", "EU 40", "EU 41"),
    ("shoe", "M"): ("EU 41", "EU 42", "EU 43", "EU 44", "EU 45"),
    ("waist", "W"): ("W26", "W28", "W30", "W32", "W34"),
    ("waist", "M"): ("W29", "W31", "W32", "W34", "W36"),
}
SIZE_STOCK = (0.18, 0.42, 0.58, 0.42, 0.18)  # chance that a colour is stocked in the step

# brand: price tier (0 value, 1 middle, 2 premium), categories it makes
BRANDS: dict[str, tuple[int, tuple[str, ...]]] = {
    "Harrow & Pine": (1, ("Shirts & Blouses", "Knitwear", "Trousers", "Coats & Jackets", "Dresses")),
    "Saltmarsh Row": (1, ("Shirts & Blouses", "Dresses", "Trousers", "Skirts", "Sandals", "Bags")),
    "Ondine Vale": (2, ("Dresses", "Skirts", "Shirts & Blouses", "Jewellery", "Scarves & Hats")),
    "Brackenfold": (1, ("Knitwear", "Coats & Jackets", "Scarves & Hats", "Boots", "Shirts & Blouses")),
    "Maison Orlet": (2, ("Dresses", "Coats & Jackets", "Bags", "Belts", "Sunglasses", "Shirts & Blouses")),
    "Tidewhistle": (0, ("T-Shirts & Tops", "Dresses", "Skirts", "Sandals", "Sunglasses", "Bags")),
    "Quaymoor": (1, ("T-Shirts & Tops", "Jeans", "Sneakers", "Coats & Jackets", "Knitwear", "Shirts & Blouses")),
    "Lumen & Loam": (1, ("T-Shirts & Tops", "Dresses", "Knitwear", "Trousers", "Skirts")),
    "Fennimoor": (2, ("Coats & Jackets", "Trousers", "Knitwear", "Shirts & Blouses", "Belts")),
    "Otterby": (0, ("Knitwear", "T-Shirts & Tops", "Jeans", "Scarves & Hats", "Shirts & Blouses")),
    "Casa Miralba": (1, ("Sandals", "Boots", "Bags", "Belts", "Sneakers")),
    "Stridefell": (1, ("Sneakers", "Boots", "Coats & Jackets", "Bags")),
    "Haldenmark": (2, ("Knitwear", "Coats & Jackets", "Trousers", "T-Shirts & Tops", "Boots")),
    "Wrenlow": (0, ("Dresses", "Skirts", "Jeans", "Shirts & Blouses", "T-Shirts & Tops", "Jewellery")),
    "Corvane": (1, ("Jeans", "T-Shirts & Tops", "Sneakers", "Boots", "Coats & Jackets", "Belts")),
    "Pebble & Thrum": (0, ("Bags", "Jewellery", "Scarves & Hats", "Sunglasses", "Belts")),
    "Violet Ardenne": (2, ("Jewellery", "Bags", "Sandals", "Boots", "Sunglasses")),
    "Noorlund": (0, ("Jeans", "Trousers", "Sneakers", "T-Shirts & Tops", "Coats & Jackets")),
}

PALETTES = {
    "summer": "White|Ecru|Sand|Olive|Sage|Sky Blue|Navy|Terracotta|Butter Yellow|Coral|Lilac|Black",
    "winter": "Oatmeal|Camel|Charcoal|Grey Marl|Burgundy|Moss|Forest Green|Navy|Rust|Plum|Mustard|Black|Ecru",
    "year": "White|Stone|Navy|Black|Olive|Sky Blue|Camel|Burgundy|Sage|Blush|Charcoal|Forest Green",
    "fine": "Ivory|Blush|Burgundy|Forest Green|Navy|Black|Lilac|Champagne|Coral",
    "denim": "Indigo|Mid Blue|Light Blue|Washed Black|Ecru",
    "leather": "Black|Tan|Chocolate|Burgundy|Stone|Olive",
    "suede": "Sand|Tan|Chocolate|Olive|Navy|Rust|Black",
    "straw": "Natural|Black|Tan",
    "metal": "Gold|Silver|Rose Gold",
    "eyewear": "Tortoise|Black|Honey|Olive",
}


@dataclass(frozen=True, slots=True)
class Material:
    """What a material costs against plain cotton, its season and palette, what is said of it and what shoppers call it."""

    season: int
    palette: str
    cost: float
    said: tuple[str, ...]
    asked: tuple[str, ...]


def _m(season: int, palette: str, cost: float, asked: str, *said: str) -> Material:
    return Material(season, palette, cost, said, tuple(asked.split("|")))


MATERIALS: dict[str, Material] = {
    "Linen": _m(1, "summer", 1.1, "linen", "Washed European linen that gets softer with every summer.",
        "Breathable linen with a gentle, lived-in crease."),
    "Cotton": _m(0, "year", 0.9, "cotton", "Long-staple cotton, soft from the first wear.",
        "Breathable cotton that washes well and keeps its shape."),
    "Poplin": _m(0, "year", 1.0, "poplin|cotton", "Smooth cotton poplin with a clean, pressed look.",
        "Fine poplin that stays crisp until the evening."),
    "Oxford": _m(0, "year", 1.0, "oxford|oxford cotton", "Sturdy Oxford cotton that only improves with washing.",
        "Basket-weave Oxford cloth with a soft hand."),
    "Flannel": _m(-1, "winter", 1.0, "flannel|brushed cotton", "Brushed on both sides for warmth on cold mornings.",
        "Thick, soft flannel made for layering."),
    "Organic Cotton": _m(0, "year", 1.0, "organic cotton|cotton", "Mid-weight organic cotton, knitted in Portugal.",
        "Soft organic cotton with a little body."),
    "Slub Cotton": _m(1, "summer", 0.9, "slub cotton|cotton", "Airy slub cotton with a slightly uneven, sun-dried texture.",
        "Light cotton for the hottest days."),
    "Viscose": _m(1, "summer", 0.95, "viscose|flowy", "Fluid viscose that moves when you do.", "Cool, drapey viscose that packs down to nothing."),
    "Satin": _m(0, "fine", 1.1, "satin|silky", "Heavy satin with a quiet sheen.", "Bias-cut satin that falls close without clinging."),
    "Silk": _m(0, "fine", 1.9, "silk", "Sand-washed silk with a matte finish.", "Pure silk, light enough for summer and easy to layer in winter."),
    "Corduroy": _m(-1, "winter", 1.1, "corduroy|cord", "Soft fine-wale corduroy with a warm, matte pile.",
        "Wide-wale corduroy with a pleasantly vintage feel."),
    "Denim": _m(0, "denim", 1.1, "denim", "Mid-weight denim, washed once so that it gives from the start.",
        "Sturdy denim that fades the way you wear it."),
    "Stretch": _m(0, "denim", 1.0, "stretch", "Denim with two per cent stretch, comfortable all day.",
        "Supple stretch denim that springs back overnight."),
    "Rigid": _m(0, "denim", 1.1, "rigid|non stretch", "Rigid, all-cotton denim with an authentic hand.",
        "No stretch at all: denim as it used to be."),
    "Selvedge": _m(0, "denim", 1.5, "selvedge|raw", "Shuttle-loomed selvedge denim, finished with a red line.", "Selvedge denim to break in slowly."),
    "Wool": _m(-1, "winter", 1.3, "wool|woollen|woolen", "Warm, springy wool from a mill in the Scottish Borders.",
        "Dense pure wool that shrugs off the cold."),
    "Lambswool": _m(-1, "winter", 1.3, "lambswool|wool", "Soft first-shear lambswool that holds its warmth.",
        "Two-ply lambswool with a gently brushed surface."),
    "Merino": _m(-1, "winter", 1.4, "merino|merino wool", "Extra-fine merino, soft against the skin.",
        "Temperature-regulating merino for desk and weekend alike."),
    "Alpaca": _m(-1, "winter", 1.5, "alpaca|wool", "A cloud-soft alpaca blend, lighter than it looks.", "Lofty alpaca with a faint halo."),
    "Cashmere": _m(-1, "winter", 2.4, "cashmere", "Grade-A cashmere, spun slowly and finished by hand.", "Pure cashmere, light and very warm."),
    "Tencel": _m(1, "summer", 1.1, "tencel|lyocell", "Tencel lyocell that drapes like silk and washes like cotton.",
        "Smooth, cool lyocell with an easy drape."),
    "Cotton Twill": _m(0, "year", 1.0, "twill|cotton", "Garment-dyed cotton twill with a soft hand.", "Hard-wearing twill that keeps its line."),
    "Gabardine": _m(0, "year", 1.3, "gabardine|cotton", "Tightly woven gabardine that keeps showers out.", "Water-repellent cotton gabardine."),
    "Waxed Cotton": _m(-1, "winter", 1.3, "waxed|waxed cotton", "Waxed cotton that can be re-proofed for years.",
        "Weatherproof waxed cotton with a cotton lining."),
    "Recycled Nylon": _m(0, "winter", 1.1, "nylon|recycled", "Matte recycled nylon that weighs next to nothing.",
        "Light, water-repellent recycled nylon."),
    "Leather": _m(0, "leather", 1.6, "leather", "Vegetable-tanned leather that deepens with wear.", "Full-grain leather, soft but sturdy."),
    "Suede": _m(0, "suede", 1.5, "suede", "Velvety suede, treated against light rain.", "Soft suede in a shade that ages well."),
    "Canvas": _m(0, "summer", 0.8, "canvas", "Heavy cotton canvas that can take a few seasons.", "Sturdy canvas, rinsed for a softer look."),
    "Raffia": _m(1, "straw", 0.9, "raffia|straw", "Hand-woven raffia; no two are quite the same.", "Natural raffia, made for markets and beaches."),
    "Plated Brass": _m(0, "metal", 0.8, "", "Polished brass with a thick plating.", "Recycled brass, plated twice so that it lasts."),
    "Pearl": _m(0, "metal", 1.4, "pearl|freshwater pearl", "Freshwater pearls, each a little irregular.", "Lustrous pearls picked by hand."),
    "Acetate": _m(1, "eyewear", 1.0, "", "Hand-polished acetate with full UV protection.", "Light acetate frames with polarised lenses."),
}
UNTITLED = ("Plated Brass", "Acetate")  # materials a title leaves out


@dataclass(frozen=True, slots=True)
class GarmentCut:
    """A kind of garment: what it may be made of, how it may be shaped, what is said of it and how shoppers ask for it."""

    category: str
    noun: str
    departments: str
    weight: float
    price: float
    materials: tuple[str, ...]
    shapes: tuple[str, ...]
    occasions: tuple[str, ...]
    asked: tuple[str, ...]
    said: tuple[str, ...]


def _cut(
    where: str, departments: str, weight: float, price: float, materials: str, shapes: str, occasions: str, asked: str, *said: str
) -> GarmentCut:
    category, noun = where.split(": ")
    of, shaped, worn, called = (tuple(text.split("|")) for text in (materials, shapes, occasions, asked))
    return GarmentCut(category, noun, departments, weight, price, of, shaped, worn, called, said)


CUTS: tuple[GarmentCut, ...] = (
    _cut("Dresses: Midi Dress", "W", 1.3, 75, "Linen|Slub Cotton|Viscose", "Relaxed|Tiered|Belted", "Everyday|Holiday|Garden Party",
         "midi dress|dress|summer dress", "Deep side pockets and a square neckline keep it simple.",
         "A gathered waist gives it shape; the hem lands mid-calf."),
    _cut("Dresses: Wrap Dress", "W", 0.8, 79, "Viscose|Tencel|Linen", "Relaxed|Ruffled|Classic", "Office|Wedding Guest|Holiday", "wrap dress|dress",
         "A true wrap with a long tie, to be adjusted as you like.", "Flutter sleeves and a wrapped front that stays put."),
    _cut("Dresses: Shirt Dress", "W", 0.9, 79, "Linen|Poplin|Corduroy", "Relaxed|Oversized|Belted", "Everyday|Office", "shirt dress|shirtdress|dress",
         "Buttons all the way down, so it doubles as a light layer.", "A sharp collar on top, an easy swing below."),
    _cut("Dresses: Slip Dress", "W", 0.6, 85, "Satin|Silk", "Bias-Cut|Cowl-Neck", "Evening|Wedding Guest|Festive",
         "slip dress|evening dress|party dress", "Fine adjustable straps and a low back.",
         "Wear it alone on warm nights or over a roll neck in winter."),
    _cut("Dresses: Knitted Dress", "W", 0.7, 89, "Merino|Lambswool", "Ribbed|Belted|Roll-Neck", "Office|Everyday",
         "knitted dress|sweater dress|jumper dress", "Long sleeves and a straight skirt, made for tall boots.",
         "Knitted in one piece, without bulky seams."),
    _cut("Shirts & Blouses: Shirt", "WM", 2.0, 59, "Linen|Linen|Poplin|Oxford", "Relaxed|Slim|Oversized|Classic", "Everyday|Office|Holiday",
         "shirt|shirt|button up shirt|button down", "Mother-of-pearl buttons and a curved hem, worn in or out.",
         "A soft collar and one chest pocket, nothing more.", "Sleeves that roll up neatly and stay there."),
    _cut("Shirts & Blouses: Overshirt", "WM", 0.7, 79, "Corduroy|Flannel|Wool", "Boxy|Relaxed|Classic", "Weekend|Everyday",
         "overshirt|shirt jacket|shacket", "Heavy enough for a jacket in October, light enough for a layer in January.",
         "Two flap pockets and horn-look buttons."),
    _cut("Shirts & Blouses: Blouse", "W", 0.9, 65, "Silk|Viscose|Poplin", "Relaxed|Tie-Neck|Puff-Sleeve", "Office|Evening|Everyday",
         "blouse|top|shirt", "Gathered cuffs and covered buttons.", "Softly gathered at the shoulders, easy at the waist."),
    _cut("T-Shirts & Tops: T-Shirt", "WM", 1.5, 27, "Organic Cotton|Slub Cotton|Cotton", "Boxy|Slim|Relaxed|Oversized", "Everyday|Weekend",
         "t-shirt|tee|tshirt|t shirt", "A close ribbed collar that does not stretch out.", "Pre-washed, so what fits today fits in a year."),
    _cut("T-Shirts & Tops: Breton Top", "WM", 0.6, 39, "Organic Cotton|Cotton", "Classic|Boxy|Relaxed", "Weekend|Everyday",
         "breton top|striped top|stripe tee", "A boat neck and stripes that meet at the seams.", "Three-quarter sleeves and a straight, easy hem."),
    _cut("T-Shirts & Tops: Polo", "M", 0.5, 45, "Organic Cotton|Cotton|Merino", "Slim|Relaxed|Knitted", "Office|Weekend", "polo|polo shirt",
         "A two-button placket and a collar that stands up for itself.", "Neat enough for work, easy enough for Sunday."),
    _cut("Knitwear: Cardigan", "WM", 1.2, 89, "Wool|Lambswool|Alpaca", "Chunky|Cable-Knit|Relaxed|Oversized", "Everyday|Weekend",
         "cardigan|cardigan|cardi|knit cardigan", "Big horn-look buttons and patch pockets for cold hands.",
         "A shawl collar to turn up against the wind.", "Knitted loosely and worn like a jacket."),
    _cut("Knitwear: Cardigan", "WM", 0.6, 79, "Merino|Cashmere|Cotton", "Fine-Knit|Cropped|Slim", "Office|Everyday", "cardigan|cardi",
         "Small buttons and neat ribbed edges.", "Fine enough to wear under a blazer."),
    _cut("Knitwear: Jumper", "WM", 1.4, 85, "Wool|Lambswool|Alpaca", "Chunky|Cable-Knit|Ribbed|Oversized", "Weekend|Everyday",
         "jumper|sweater|pullover|knit", "Dropped shoulders and a deep rib at hem and cuffs.", "Cables that run the whole length, front and back.",
         "The kind of knit that is borrowed and not returned."),
    _cut("Knitwear: Roll Neck", "WM", 0.8, 79, "Merino|Cashmere|Lambswool", "Fine-Knit|Slim|Ribbed", "Office|Evening",
         "roll neck|turtleneck|turtle neck|polo neck", "A soft, folded collar that does not itch.",
         "Slim through the body, so it layers without bunching."),
    _cut("Trousers: Trousers", "WM", 1.2, 79, "Linen|Tencel", "Wide-Leg|Relaxed|Tapered", "Holiday|Everyday|Office", "trousers|pants|summer trousers",
         "A drawstring inside the waistband for long lunches.", "A flat front, an easy rise and deep pockets."),
    _cut("Trousers: Trousers", "WM", 1.0, 89, "Wool|Corduroy|Cotton Twill", "Wide-Leg|Tapered|Pleated|Straight", "Office|Everyday",
         "trousers|pants|smart trousers", "Lined to the knee, so that they never cling.", "Cut high, with a clean line to the hem."),
    _cut("Trousers: Chinos", "M", 0.7, 65, "Cotton Twill|Cotton", "Slim|Straight|Relaxed", "Everyday|Office", "chinos|chino trousers|khakis",
         "Slanted pockets and a neat, narrow hem.", "Rinsed for softness before they reach you."),
    _cut("Jeans: Jeans", "WM", 1.9, 79, "Stretch|Rigid|Selvedge", "Straight|Slim|Wide-Leg|Tapered|Cropped", "Everyday|Weekend",
         "jeans|jeans|denim jeans|denims", "Five pockets, copper rivets, nothing in excess.",
         "A mid rise and a hem that sits well on boots and sneakers alike.", "Washed with less water and finished by hand."),
    _cut("Skirts: Midi Skirt", "W", 0.9, 65, "Linen|Satin|Wool", "Pleated|A-Line|Bias-Cut", "Office|Everyday|Garden Party", "midi skirt|skirt",
         "An elasticated back keeps the flat front comfortable.", "Falls straight, then swings when you walk."),
    _cut("Skirts: Mini Skirt", "W", 0.6, 49, "Denim|Corduroy|Cotton Twill", "A-Line|Buttoned", "Weekend|Everyday", "mini skirt|skirt|short skirt",
         "Sits at the waist, with pockets that hold a phone.", "Made for tights in winter and bare legs in June."),
    _cut("Coats & Jackets: Coat", "WM", 1.0, 189, "Wool|Alpaca", "Longline|Tailored|Double-Breasted", "Office|Everyday", "coat|winter coat|overcoat",
         "Fully lined, with an inside pocket where it should be.", "Notched lapels and a back vent for long strides."),
    _cut("Coats & Jackets: Trench Coat", "WM", 0.6, 159, "Gabardine", "Classic|Oversized|Cropped", "Office|Everyday", "trench coat|trench|mac",
         "Storm flap, belt and buttoned cuffs, as a trench should have.", "Lined through the sleeves, so it slips over knitwear."),
    _cut("Coats & Jackets: Parka", "WM", 0.7, 149, "Recycled Nylon|Waxed Cotton", "Hooded|Quilted|Longline", "Outdoors|Weekend",
         "parka|winter jacket|rain jacket", "A deep hood and pockets lined with fleece.", "Taped seams and a two-way zip."),
    _cut("Coats & Jackets: Blazer", "WM", 0.8, 129, "Linen|Wool|Cotton Twill", "Relaxed|Tailored|Double-Breasted", "Office|Wedding Guest",
         "blazer|suit jacket|jacket", "Half-lined, with a softly built shoulder.", "Patch pockets take the edge off; the cut does the rest."),
    _cut("Coats & Jackets: Trucker Jacket", "WM", 0.6, 89, "Denim|Corduroy|Suede", "Boxy|Classic|Cropped", "Weekend|Everyday",
         "trucker jacket|jacket|casual jacket", "Chest pockets, side tabs and plenty of room for a hoodie.", "Short, square and better every year."),
    _cut("Sneakers: Sneakers", "WM", 1.6, 89, "Leather|Canvas|Suede", "Low-Top|High-Top|Retro|Chunky", "Everyday|Weekend",
         "sneakers|trainers|sneakers|shoes", "A cushioned insole and a natural rubber sole.", "Clean lines, padded collar, no loud logos."),
    _cut("Boots: Chelsea Boots", "WM", 0.8, 139, "Leather|Suede", "Classic|Chunky|Slim", "Everyday|Office", "chelsea boots|ankle boots|boots",
         "Elastic sides and a pull tab: on in two seconds.", "A rubber sole that copes with wet pavements."),
    _cut("Boots: Lace-Up Boots", "WM", 0.8, 149, "Leather|Suede", "Chunky|Classic|Shearling-Lined", "Outdoors|Weekend",
         "lace up boots|winter boots|boots|combat boots", "A commando sole and a padded collar.", "Stitched to be resoled, not replaced."),
    _cut("Boots: Knee Boots", "W", 0.5, 169, "Leather|Suede", "Block-Heel|Flat|Slim", "Office|Evening",
         "knee boots|tall boots|knee high boots|long boots", "A full zip inside and a little give at the calf.",
         "Comfortable enough for whole days on your feet."),
    _cut("Sandals: Sandals", "WM", 1.0, 65, "Leather|Suede", "Flat|Crossover|Buckled", "Holiday|Everyday", "sandals|summer sandals|slides",
         "A moulded footbed that remembers your foot.", "Soft straps that need no breaking in."),
    _cut("Sandals: Espadrilles", "W", 0.5, 69, "Canvas|Suede|Raffia", "Flat|Wedge|Ankle-Tie", "Holiday|Garden Party",
         "espadrilles|espadrille sandals|wedges", "A braided jute sole, hand-stitched in Spain.", "Light on the foot from terrace to beach."),
    _cut("Bags: Tote Bag", "U", 1.0, 79, "Leather|Canvas|Raffia", "Large|Slouchy|Structured", "Office|Everyday|Holiday", "tote bag|tote|shopper bag",
         "Takes a laptop, a book and the groceries.", "An inner pouch for keys and long handles for full arms."),
    _cut("Bags: Crossbody Bag", "U", 1.0, 85, "Leather|Suede|Canvas", "Small|Quilted|Slouchy", "Everyday|Evening|Travel",
         "crossbody bag|cross body bag|small bag|shoulder bag", "An adjustable strap and a zip that closes all the way.",
         "Room for the essentials and not an ounce more."),
    _cut("Bags: Backpack", "U", 0.6, 89, "Canvas|Leather|Recycled Nylon", "Rolltop|Compact|Classic", "Travel|Office",
         "backpack|rucksack|laptop backpack", "A padded laptop sleeve and straps that sit well.",
         "Two bottle pockets and a hidden one for the passport."),
    _cut("Scarves & Hats: Scarf", "U", 0.9, 49, "Wool|Lambswool|Cashmere|Alpaca", "Oversized|Fringed|Ribbed", "Everyday|Gift",
         "scarf|winter scarf|shawl", "Long enough to wrap twice.", "Finished with a hand-knotted fringe."),
    _cut("Scarves & Hats: Beanie", "U", 0.6, 29, "Merino|Lambswool|Cashmere", "Ribbed|Chunky|Fine-Knit", "Outdoors|Gift",
         "beanie|winter hat|wool hat|knit hat", "A deep cuff to fold up or down.", "Snug over the ears without flattening the hair."),
    _cut("Scarves & Hats: Sun Hat", "U", 0.5, 39, "Raffia|Canvas", "Wide-Brim|Foldable|Packable", "Holiday", "sun hat|summer hat|beach hat",
         "Folds flat for the suitcase and springs back.", "A brim wide enough for a long lunch outside."),
    _cut("Belts: Belt", "U", 0.8, 39, "Leather|Suede", "Slim|Wide|Braided", "Office|Everyday", "belt|waist belt",
         "A brushed buckle and five well-placed holes.", "Finished by hand and made to be worn for years."),
    _cut("Jewellery: Hoop Earrings", "W", 0.7, 35, "Plated Brass|Pearl", "Small|Bold|Fine", "Everyday|Evening|Gift", "hoop earrings|hoops|earrings",
         "Light enough to forget you are wearing them.", "A secure click closure."),
    _cut("Jewellery: Pendant Necklace", "W", 0.7, 45, "Plated Brass|Pearl", "Fine|Layered|Bold", "Gift|Evening|Festive",
         "pendant necklace|necklace|chain", "On a chain with three lengths to choose from.", "Comes in a linen pouch, ready to give."),
    _cut("Sunglasses: Sunglasses", "U", 0.9, 69, "Acetate", "Round|Square|Cat-Eye|Aviator", "Holiday|Everyday", "sunglasses|sunnies|shades",
         "Five-barrel hinges that will not loosen by August.", "Comes with a soft case made of leftover fabric."),
)

CATEGORIES = tuple(dict.fromkeys(cut.category for cut in CUTS))
COLOURS = tuple(dict.fromkeys(name for palette in PALETTES.values() for name in palette.split("|")))
SHAPES = tuple(dict.fromkeys(shape for cut in CUTS for shape in cut.shapes))
NOUNS = tuple(dict.fromkeys(cut.noun for cut in CUTS))
SIZE_SYSTEM = {"Jeans": "waist", "Sneakers": "shoe", "Boots": "shoe", "Sandals": "shoe"} | dict.fromkeys(
    ("Bags", "Scarves & Hats", "Belts", "Jewellery", "Sunglasses"), "one")
CATEGORY_SEASON = {
    "Knitwear": -1.0, "Coats & Jackets": -0.9, "Boots": -0.9, "Scarves & Hats": -0.6, "Sandals": 1.2, "Sunglasses": 0.9, "Dresses": 0.6,
    "T-Shirts & Tops": 0.5, "Skirts": 0.3, "Shirts & Blouses": 0.2,
}  # + summer, - winter
COMPLEMENTS = {
    "Dresses": ("Sandals", "Boots", "Bags", "Jewellery"), "Shirts & Blouses": ("Trousers", "Jeans", "Knitwear"),
    "T-Shirts & Tops": ("Jeans", "Sneakers"), "Knitwear": ("Jeans", "Scarves & Hats", "Boots"), "Trousers": ("Belts", "Shirts & Blouses"),
    "Jeans": ("T-Shirts & Tops", "Sneakers", "Belts"), "Skirts": ("Boots", "T-Shirts & Tops"), "Coats & Jackets": ("Scarves & Hats", "Boots"),
    "Sneakers": ("Jeans", "T-Shirts & Tops"), "Boots": ("Knitwear", "Coats & Jackets"), "Sandals": ("Sunglasses", "Dresses"),
    "Bags": ("Sunglasses", "Belts"), "Scarves & Hats": ("Coats & Jackets",), "Belts": ("Trousers", "Jeans"), "Jewellery": ("Dresses", "Bags"),
    "Sunglasses": ("Sandals", "Bags"),
}
PERSONAS: dict[str, str] = {  # what a kind of shopper likes, by the names used above
    "coastal": "Harrow & Pine|Saltmarsh Row|Tidewhistle|White|Sand|Sage|Olive|Sky Blue|Linen|"
    "Slub Cotton|Raffia|Tencel|Relaxed|Wide-Leg|Shirts & Blouses|Dresses|Sandals|Trousers",
    "heritage": "Brackenfold|Otterby|Harrow & Pine|Moss|Rust|Camel|Forest Green|Oatmeal|"
    "Wool|Lambswool|Corduroy|Waxed Cotton|Chunky|Cable-Knit|Knitwear|Coats & Jackets|Boots",
    "tailored": "Fennimoor|Maison Orlet|Haldenmark|Navy|Charcoal|Camel|White|Wool|"
    "Poplin|Leather|Tailored|Slim|Pleated|Coats & Jackets|Trousers|Shirts & Blouses|Belts",
    "street": "Quaymoor|Corvane|Noorlund|Stridefell|Black|White|Washed Black|"
    "Charcoal|Canvas|Organic Cotton|Oversized|Boxy|T-Shirts & Tops|Jeans|Sneakers",
    "romantic": "Ondine Vale|Wrenlow|Violet Ardenne|Blush|Lilac|Coral|Ivory|Silk|"
    "Satin|Viscose|Ruffled|Bias-Cut|Puff-Sleeve|Dresses|Skirts|Jewellery|Bags",
    "quiet": "Haldenmark|Maison Orlet|Lumen & Loam|Black|Ecru|Stone|Grey Marl|Merino|"
    "Cashmere|Fine-Knit|Straight|Longline|Knitwear|Trousers|Bags|Coats & Jackets",
    "outdoors": "Stridefell|Noorlund|Brackenfold|Olive|Navy|Mustard|Forest Green|Recycled Nylon|"
    "Flannel|Canvas|Hooded|Classic|Coats & Jackets|Boots|Sneakers|Scarves & Hats",
    "retro": "Corvane|Lumen & Loam|Pebble & Thrum|Otterby|Casa Miralba|Rust|Terracotta|Chocolate|Indigo|Tan|"
    "Suede|Corduroy|Rigid|Cropped|A-Line|Retro|Jeans|Skirts|Sunglasses|Boots",
}
ASKED_COLOUR = {
    "Sage": "sage|sage green|sage|light green", "Olive": "olive|olive green|olive", "Moss": "moss green|moss|dark green",
    "Forest Green": "forest green|dark green|green", "Navy": "navy|navy blue|dark blue", "Grey Marl": "grey|gray|light grey",
    "Charcoal": "charcoal|dark grey|charcoal grey", "Butter Yellow": "yellow|butter yellow|pale yellow", "Burgundy": "burgundy|wine red|dark red",
    "Blush": "blush|pink|blush pink", "Oatmeal": "oatmeal|beige|cream", "Sand": "sand|beige", "Ecru": "ecru|cream|off white",
    "Ivory": "ivory|off white|cream", "Chocolate": "brown|dark brown|chocolate", "Camel": "camel|light brown", "Tan": "tan|tan brown|brown",
    "Sky Blue": "light blue|sky blue|blue", "Light Blue": "light blue|light wash", "Mid Blue": "blue|mid blue",
    "Indigo": "indigo|dark blue|dark wash", "Washed Black": "black|washed black", "Rust": "rust|rust orange", "Terracotta": "terracotta|burnt orange",
    "Plum": "plum|purple", "Lilac": "lilac|light purple|lavender", "Tortoise": "tortoise|tortoiseshell", "Stone": "stone|beige|light grey",
}
ASKED_SHAPE = {
    "Relaxed": "relaxed|loose|relaxed fit|loose fit", "Slim": "slim|slim fit|fitted", "Oversized": "oversized|oversize|baggy",
    "Chunky": "chunky|chunky|thick|heavy", "Cable-Knit": "cable knit|cable|cableknit", "Fine-Knit": "fine knit|thin|lightweight",
    "Wide-Leg": "wide leg|wide", "Classic": "classic|plain", "Straight": "straight|straight leg", "Tapered": "tapered|tapered fit",
    "Boxy": "boxy|loose", "Longline": "long|longline",
}
ASKED_OCCASION = {
    "Everyday": "casual|everyday", "Office": "for work|office|for the office", "Holiday": "for holiday|vacation|beach",
    "Wedding Guest": "wedding guest|for a wedding", "Evening": "evening|going out|date night", "Festive": "party|new year's eve|christmas party",
    "Garden Party": "garden party|for a garden party", "Travel": "travel|for travel", "Gift": "gift|present|as a gift", "Weekend": "weekend|casual",
    "Outdoors": "for hiking|outdoor",
}

# One index for everything a taste may be about; a listing's codes are (brand, colour, category, shape, material, noun, tier).
FAMILIES = (tuple(BRANDS), COLOURS, CATEGORIES, SHAPES, tuple(MATERIALS), tuple(f"noun {noun}" for noun in NOUNS), ("tier 0", "tier 1", "tier 2"))
FEATURES = {name: place for place, name in enumerate(name for family in FAMILIES for name in family)}
