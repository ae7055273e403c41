"""Words that a request is made of, in tables: names of attributes, colours in five languages, departments, small words.

Tables only, folded as spelling.py folds. They say what people mean by a word; whether a shop has it is for
vocabulary.py to say, and nothing here becomes a wish that the shop's catalogue does not hold.
"""

from __future__ import annotations

# fmt: off


def _table(text: str) -> dict[str, str]:
    """Lines "meaning: word, word": word → meaning, the meaning itself among the words."""
    lines = (line.split(":") for line in text.strip().splitlines())
    return {word.strip(): meaning.strip() for meaning, words in lines for word in (meaning, *words.split(","))}


# The names that shops give an attribute → the one used here.
NAMES = _table("""
    color: colour, colors, colours, farbe, couleur, colore, farbton, base colour, color name, colour name, product color
    department: gender, sex, audience, target group, geschlecht, age group, target gender, for, dept
    material: fabric, materials, stoff, fabric type, composition, matiere, main material
    brand: marke, manufacturer, marque, maker, hersteller, designer
    size: sizes, grosse, groesse, taille, taglia, talla
    category: product type, type, product category, kategorie, categorie, article type, item type
    occasion: usage, anlass
    season: saison
""")

# A colour as people say it → the base colour in English. Fold keys: no accents. Inflected German forms are cut to the
# stem by vocabulary.py ("schwarze", "schwarzen").
COLOURS = _table("""
    black: schwarz, noir, noire, noirs, noires, negro, negra, negros, negras, nero, nera, neri, nere
    white: weiss, blanc, blanche, blancs, blanches, blanco, blanca, blancos, blancas, bianco, bianca, bianchi, bianche
    red: rot, rouge, rouges, rojo, roja, rojos, rojas, rosso, rossa, rossi, rosse
    blue: blau, bleu, bleue, bleus, bleues, azul, azules, blu, azzurro, azzurra
    green: grun, gruen, vert, verte, verts, vertes, verde, verdes, verdi
    yellow: gelb, jaune, jaunes, amarillo, amarilla, amarillos, amarillas, giallo, gialla, gialli, gialle
    brown: braun, marron, brun, brune, bruns, brunes, marrones, marrone, marroni
    grey: gray, grau, gris, grise, grises, grigio, grigia, grigi, grigie
    pink: rosa, rose, roses
    purple: lila, violett, violet, violette, violets, violettes, morado, morada, viola, mauve
    orange: naranja, arancione, oranges
    beige: creme, crema, sandfarben
    navy: navy blue, marine, marineblau, dunkelblau, bleu marine, bleu fonce, azul marino, blu scuro, dark blue
    burgundy: bordeaux, weinrot, wine red, burdeos, dark red, maroon, wine
    gold: golden, dore, doree, dorado, dorada, oro
    silver: silbern, silber, argent, argente, plateado, plateada, argento
    turquoise: turkis, tuerkis, turquesa, turchese
    olive: olivgrun, oliv, olive green
    khaki: kaki
    cream: off white
    charcoal: anthrazit, anthracite, dark grey, dark gray
    light blue: hellblau, bleu clair, azul claro, azul celeste, celeste, azzurri
    dark green: dunkelgrun, vert fonce, verde oscuro
    light grey: hellgrau, light gray
    multicolour: multicolor, bunt, mehrfarbig, multicolore
""")

# Shades that people mean by a base colour where a shop has no value of that name.
SHADES = {
    "red": "burgundy,crimson,scarlet,ruby,cherry,wine,maroon",
    "blue": "navy,indigo,cobalt,teal,denim,azure,turquoise",
    "green": "olive,sage,moss,khaki,emerald,mint,forest",
    "grey": "charcoal,slate,ash,graphite,anthracite",
    "brown": "chocolate,tan,camel,cognac,chestnut,coffee,mocha,tobacco",
    "pink": "blush,rose,coral,fuchsia,magenta,salmon",
    "purple": "plum,lilac,lavender,violet,aubergine,mauve",
    "orange": "rust,terracotta,coral,apricot,peach,copper",
    "yellow": "mustard,butter,lemon,ochre,honey",
    "beige": "sand,camel,ecru,oatmeal,stone,nude,taupe,cream",
    "cream": "ecru,ivory,oatmeal,off white",
    "white": "ivory,ecru,off white",
    "navy": "indigo",
    "burgundy": "wine,maroon,plum",
    "light blue": "sky blue,baby blue",
    "dark green": "forest green,moss,olive",
    "light grey": "grey marl,stone",
    "khaki": "olive",
    "charcoal": "grey marl",
}
# Words before a base colour that leave it this colour: "washed black" is black, "rose gold" is not gold.
TONES = set("light dark deep pale bright washed jet mid medium soft off pure heather dusty faded royal pastel".split())

# Who it is for, as people say it → the department.
DEPARTMENTS = _table("""
    women: woman, womens, womans, ladies, lady, female, feminine, damen, dame, frauen, frau, femme, femmes, mujer, mujeres, donna, donne, her, girlfriend, wife, mum, mom, mother, sister, grandma, aunt, girlfriends
    men: man, mens, mans, male, masculine, gents, gentlemen, herren, herr, manner, homme, hommes, hombre, hombres, uomo, uomini, him, boyfriend, husband, dad, father, brother, grandpa, uncle
    girls: girl, madchen, fille, filles, daughter, niece, granddaughter
    boys: boy, jungen, junge, garcon, garcons, son, nephew, grandson
    kids: kid, child, children, childrens, kinder, kind, enfant, enfants, ninos, bambini, toddler
    baby: babies, babys, newborn, infant, infants
    unisex: all, everyone, adult, adults, both, universal
""")
# Of those, what is a relation and needs "for": "for my dad" is men, "mother of pearl" is no department.
PERSONS = set("""her girlfriend wife mum mom mother sister grandma aunt him boyfriend husband dad father brother grandpa
    uncle daughter niece granddaughter son nephew grandson all everyone adult adults both universal kind""".split())
# Where a shop has no department of that name: the next one that holds it.
WIDER = {"girls": ("kids", "women"), "boys": ("kids", "men"), "baby": ("kids",), "kids": ("girls", "boys")}

# English (and some German) words for a kind of product that an encoder of sentences confuses; both ways.
KINDS = (
    "trousers,pants,slacks,hosen,hose,pantalon", "sneakers,trainers,runners,turnschuhe,baskets",
    "jumper,sweater,pullover,pulli", "dresses,dress,kleid,kleider,robe", "boots,boot,stiefel,bottes,boots",
    "shirts,shirt,hemd,hemden,chemise", "t shirts,tee,tees,t shirt,tshirt,tshirts", "coats,coat,mantel,manteau",
    "jackets,jacket,jacke,jacken,veste", "skirts,skirt,rock,rocke,jupe", "bags,bag,tasche,taschen,handbag,purse,sac",
    "shoes,shoe,schuhe,schuh,chaussures", "socks,sock,socken", "belts,belt,gurtel,ceinture",
    "hats,hat,hut,hute,mutze,beanie", "scarves,scarf,schal,schals,echarpe", "sandals,sandal,sandalen,sandale",
    "sunglasses,sunglass,sonnenbrille,sonnenbrillen,shades", "jewellery,jewelry,schmuck,bijoux",
    "knitwear,knits,knit,strickwaren,strick", "jeans,jean,denims", "blouses,blouse,blusen,bluse",
    "wool,wolle,laine,lana", "cotton,baumwolle,coton,algodon,cotone", "leather,leder,cuir,cuero,pelle",
    "silk,seide,soie,seda,seta", "linen,leinen,lin,lino",
    "office,work,business", "evening,night out,date night", "holiday,vacation,beach,urlaub",
    "wedding guest,wedding,hochzeit", "outdoors,outdoor,hiking", "festive,party,christmas", "gift,present,geschenk",
    "everyday,casual", "travel,travelling,traveling", "spring,fruhling", "summer,sommer,ete,verano,estate",
    "autumn,fall,herbst", "winter,hiver,invierno,inverno", "weekend,wochenende", "garden party,gartenfest",
)

# What else is avoided with a material.
KIND_OF = {"wool": "lambswool,merino,merino wool", "leather": "suede,nubuck", "fur": "shearling"}

# Attributes whose words rank and are not demanded: occasions and seasons.
SOFT = ("occasion", "season")
WARM = ("winter", "wool", "cashmere", "fleece", "down", "alpaca", "lambswool", "merino", "flannel", "lined", "warm")
LIGHT = ("summer", "linen", "silk", "viscose", "light", "airy", "breathable", "thin")

# What may stand before a value that is not wanted, longest first where one begins with another.
NEGATIONS = tuple(sorted((tuple(one.split()) for one in """not|no|without|except|except for|excluding|minus|avoid|hate|
    dislike|never|non|sans|ohne|nicht|kein|keine|keinen|ausser|sin|senza|pas de|exclude|other than|apart from|rather than|
    instead of|i dont like|i dont want|dont want|neither|nor|nothing in|nothing with|none in|anything but|everything but|
    not in|not from|not by|no more|dont show me|dont show""".split("|")), key=lambda one: -len(one)))
# Words that end the reach of a negation, and those that carry it on to the next value.
ENDS = set("but with however rather for under below over above mit aber , ; . ! ? :".split())
ALSO = set("or and nor oder und ou et o y e / &".split())
# What takes a part of earlier wishes back: "any colour is fine", "never mind the price".
ANY = tuple(sorted((tuple(one.split()) for one in """any|whatever|whichever|every|forget|forget about|never mind|nevermind|
    no matter|regardless of|i dont care about|dont care about|ignore|egal|drop""".split("|")), key=lambda one: -len(one)))
NO_MATTER = tuple(tuple(one.split()) for one in """doesnt matter|does not matter|isnt important|is not important|dont matter|
    do not matter|is no issue|is not an issue""".split("|"))
PARTS = {
    "price": "price", "prices": "price", "budget": "price", "money": "price", "cost": "price", "preis": "price",
    "colour": "color", "color": "color", "colours": "color", "colors": "color", "farbe": "color", "brand": "brand",
    "brands": "brand", "marke": "brand", "maker": "brand", "size": "size", "sizes": "size", "grosse": "size",
    "material": "material", "materials": "material", "fabric": "material", "category": "category", "kind": "category",
    "type": "category", "occasion": "soft", "season": "soft", "department": "department", "gender": "department",
}
# Bounds: words before a number, after it, and what a number is not a price with.
MOST = tuple(sorted((tuple(one.split()) for one in """under|below|less than|cheaper than|no more than|not more than|at most|
    up to|max|maximum|max of|maximum of|not over|not above|within|budget|budget of|budget is|<|< =|<=|≤|unter|bis|bis zu|
    hochstens|weniger als|maximal|moins de|jusqua|menos de|meno di|hasta|fino a|sotto|no higher than""".split("|")),
    key=lambda one: -len(one)))
LEAST = tuple(sorted((tuple(one.split()) for one in """over|above|more than|at least|from|min|minimum|minimum of|starting at|
    upwards of|not under|not below|no less than|not less than|>|> =|>=|≥|uber|ab|mindestens|mehr als|plus de|au moins|
    mas de|piu di|dearer than|pricier than""".split("|")), key=lambda one: -len(one)))
NEARLY = tuple((one,) for one in "around about approximately roughly circa ca ~ near environ etwa ungefahr".split())
MOST_AFTER = tuple(tuple(one.split()) for one in "or less|or under|or below|or cheaper|and under|and below|max|maximum|tops|at most".split("|"))
LEAST_AFTER = tuple(tuple(one.split()) for one in "or more|or above|or over|and up|and above|and over|minimum|min|upwards".split("|"))
CURRENCY = set("€ $ £ eur euro euros usd dollar dollars gbp pound pounds bucks quid chf francs".split())
UNITS = set("""cm mm m inch inches kg g mg ml l oz gb mb tb percent % hours hour days years year months w watt watts pack
    pieces pcs den pockets pocket stars star buttons items pairs colours colors sizes""".split())
# How a product stands to one that was seen.
RELATIVE = {
    "cheaper": "cheaper", "gunstiger": "cheaper", "billiger": "cheaper", "dearer": "dearer", "pricier": "dearer",
    "warmer": "warmer", "cosier": "warmer", "cozier": "warmer", "thicker": "warmer", "warmeres": "warmer",
    "lighter": "lighter", "cooler": "lighter", "thinner": "lighter", "airier": "lighter",
}
DEARER = (("more", "expensive"), ("more", "luxurious"), ("higher", "quality"))
CHEAPER = (("less", "expensive"), ("more", "affordable"), ("less", "pricey"))
OTHER = set("another other different andere anderer autre".split())
SAME = set("same gleiche gleicher meme".split())
LIKE = set("like similar resembling wie comme".split())
POINTERS = set("the my that those this these it them one ones first second third last".split())
PLACES = {"first": 0, "second": 1, "third": 2, "fourth": 3, "fifth": 4}
HAD = set("bought buy had ordered purchased own got viewed saw seen liked looked clicked have".split())
DEAR = set("expensive pricey dear costly teuer".split())
# Words that say nothing of a product. Never read as a misspelt value.
SMALL = set("""a an the some any of to in on at by with and or for from as am is are be it its this that these those i im id
    ive me my mine we our us you your he she they them who what which where when would like want wants wanted need needs
    looking look search searching find show give get got buy buying please thanks thank hi hello hey can could should may
    might do does have has had just only also too very really quite something anything things thing stuff one ones pair
    pairs item items product products piece pieces kind sort type good nice great best new latest recommend suggest
    recommendation suggestions help more most less least than then so but if there here about color colour colors colours size
    sizes price priced brand brands made make out up down off into wear wearing ein eine einen einem einer der die das den
    dem des und oder fur ich suche mochte bitte mit in aus von zu im un une des les le la de du et ou pour je cherche el los
    las una unos y o para con busco il lo gli i per con cerco e goes go going cost costs costing style styles match matching
    preferably ideally maybe perhaps let lets see know think could id youve theres sth smth us euro euros eur usd dollars
    dollar pounds gbp budget""".split())
# Ordinary English words near which a value may be spelt: they are meant as they stand.
ORDINARY = set("""back pack block blank slack track pick sick sock sand hand band land wind mind kind find fine line lone
    done gone bone tone zone work word warm wars soft lift left light night right tight long song wing king ring rings
    best rest test west vest nest read road load lead dead head bread dream cream steam team seam sport short shore share
    shape sharp shirt skirt short suit suits fruit root roots foot food good wood mood moon soon noon color cover lover
    over under above below heel heels wheel feel deal real meal seal steel still skill hill will well bell belt felt melt
    boat boots coat goat cost lost most post host rust must dust just trust crust stone store story style slim trim prim
    plain plane plate place space grace brace black blue glue clue true tree three free green grey great treat wheat
    cheap sheep sleep deep keep week weak peak speak break brown crown grown drown town gown down white write quite
    gift lift shift drift swift night party purse nurse horse house mouse mouth south north earth heart smart start part
    card hard yard guard board broad bread spread thread dress press cross class glass grass brass mass loss boss
    little middle bottle simple single double trouble table cable stable able camel panel model metal petal pedal
    sandal signal final total local vocal royal loyal casual usual visual mutual actual holiday birthday monday friday
    sunday summer hammer winter center spring string autumn column wedding bedding reading meeting evening morning
    office officer travel travels weekend weekday outdoor indoor festive active native beach teach reach coach peach
    matching watching catching water later paper tiger silver river driver cotton button bottom common woolen wooden
    golden garden warden harden burden hidden sudden modern pattern western eastern classic basic magic music comfy
    cosy cozy comfortable stylish elegant fancy pretty cute cool hot cold rain snow sunny windy dry wet clean dirty
    bigger smaller longer shorter wider lower higher larger newer older heavy thick thin loose baggy fitted tall petite
    plus waterproof water proof vegan organic recycled sustainable slip strap straps zip zipper hood hooded sleeve sleeves
    sleeveless collar pocket pockets lining print printed striped stripes dots floral checked plaid lace mesh knit woven
    hiking running walking dancing swimming training yoga gym school college church funeral interview dinner lunch date
    like likes love loves people person woman women friend friends family mother father sister brother daughter""".split())

CHEAP = set("cheap cheaply affordable inexpensive bargain gunstig billig economical".split())
