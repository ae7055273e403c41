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


def _phrases(text: str) -> tuple[tuple[str, ...], ...]:
    """Phrases parted by "|", as words, the longest first."""
    return tuple(sorted((tuple(one.split()) for one in text.split("|")), key=lambda one: -len(one)))


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
    navy: navy blue, marine, marineblau, bleu marine, azul marino
    dark blue: dunkelblau, bleu fonce, azul oscuro, blu scuro, midnight blue
    burgundy: bordeaux, weinrot, wine red, burdeos, dark red, maroon, wine
    gold: golden, dore, doree, dorado, dorada, oro
    silver: silbern, silber, argent, argente, plateado, plateada, argento
    turquoise: turkis, tuerkis, turquesa, turchese
    olive: olivgrun, oliv, olive green
    khaki: kaki
    cream: off white
    charcoal: anthrazit, anthracite, dark grey, dark gray
    light blue: hellblau, pale blue, bleu clair, azul claro, azul celeste, celeste, azzurri
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
    "dark green": "forest green,moss,olive",
    "light grey": "grey marl,stone",
    "khaki": "olive",
    "charcoal": "grey marl",
}
# What else is of a shade that has its name from its tone, whether or not the shop has a value of that name.
FAMILIES = {
    "light blue": "sky blue,baby blue,powder blue,ice blue", "dark blue": "navy,navy blue,midnight,indigo",
    "navy": "dark blue,midnight blue", "dark green": "forest green,bottle green",
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

# Words for one kind of thing in English, German, French, Spanish and Italian. An English encoder of sentences finds few
# of them: from gown to dress, not from anorak to jacket or from schwarz to black (vocabulary.py, NEAR).
KINDS = (
    "trousers,pants,slacks,hosen,hose,pantalon,pantalones,pantaloni",
    "sneakers,trainers,runners,turnschuhe,baskets,zapatillas,scarpe da ginnastica",
    "jumper,sweater,pullover,pulli,jersey,maglione,pull", "cardigan,cardi,strickjacke",
    "dresses,dress,gown,frock,kleid,kleider,robe,robes,vestido,vestidos,vestito,vestiti,abito",
    "boots,boot,wellies,wellingtons,stiefel,bottes,botas,stivali",
    "shirts,shirt,hemd,hemden,chemise,chemises,camisa,camisas,camicia,camicie",
    "t shirts,tee,tees,t shirt,tshirt,tshirts,camiseta,camisetas,maglietta,magliette",
    "coats,coat,overcoat,mantel,manteau,manteaux,abrigo,abrigos,cappotto,cappotti",
    "jackets,jacket,anorak,windbreaker,jacke,jacken,veste,vestes,chaqueta,chaquetas,giacca,giacche",
    "skirts,skirt,rock,rocke,jupe,jupes,falda,faldas,gonna,gonne",
    "bags,bag,handbag,purse,satchel,clutch,tasche,taschen,handtasche,handtaschen,sac,sacs,bolso,bolsos,borsa,borse",
    "backpack,rucksack,knapsack,rucksacke,mochila,zaino", "shoes,shoe,schuhe,schuh,chaussures,zapatos,scarpe",
    "socks,sock,socken,chaussettes,calcetines,calze", "belts,belt,gurtel,ceinture,ceintures,cinturon,cintura",
    "hats,hat,hut,hute,mutze,chapeau,sombrero,cappello", "scarves,scarf,shawl,schal,schals,echarpe,bufanda,sciarpa",
    "sandals,sandal,slides,sandalen,sandale,sandales,sandalias,sandali",
    "sunglasses,sunglass,shades,sunnies,sonnenbrille,sonnenbrillen,lunettes de soleil,gafas de sol,occhiali da sole",
    "jewellery,jewelry,schmuck,bijoux,joyas,gioielli", "knitwear,knits,knit,strickwaren,strick",
    "jeans,jean,denims,vaqueros", "blouses,blouse,blusen,bluse,chemisier,blusa,blusas,camicetta",
    "wool,wolle,laine,lana,woolen,woollen", "cotton,baumwolle,coton,algodon,cotone", "leather,leder,cuir,cuero,pelle",
    "silk,seide,soie,seda,seta", "linen,leinen,lin,lino", "office,work,workplace,business,buro,bureau",
    "evening,night out,date night", "holiday,vacation,vacations,beach,urlaub", "wedding guest,wedding,bridal,hochzeit",
    "outdoors,outdoor,hiking", "festive,party,christmas", "gift,present,geschenk,cadeau,regalo", "everyday,casual",
    "travel,travelling,traveling", "spring,springtime,fruhling", "summer,summertime,sommer,ete,verano,estate",
    "autumn,fall,herbst,otono,autunno", "winter,wintry,hiver,invierno,inverno", "weekend,wochenende",
    "garden party,gartenfest",
)

# Words for several kinds, where a shop has none of that name.
HOLDS = {
    "shoes,footwear,schuhe,chaussures,zapatos,scarpe": "boots,sneakers,sandals,loafers,heels,flats",
    "outerwear": "coats,jackets", "accessories": "belts,scarves,hats,bags,sunglasses,jewellery",
}

# What else is avoided with a material.
KIND_OF = {"wool": "lambswool,merino,merino wool", "leather": "suede,nubuck", "fur": "shearling"}

# What else is wanted with a material: a lambswool jumper is one of wool.
FINER = {"wool": ("lambswool", "merino", "merino wool")}

# Attributes whose words rank and are not demanded: occasions and seasons.
SOFT = ("occasion", "season")
WARM = ("winter", "wool", "cashmere", "fleece", "down", "alpaca", "lambswool", "merino", "flannel", "lined", "warm")
LIGHT = ("summer", "linen", "silk", "viscose", "light", "airy", "breathable", "thin")

# What may stand before a value that is not wanted, longest first where one begins with another. With `STRONG` a comma
# carries on to the next value of the attribute ("without leather, wool"), with `WEAK` only a list that is closed does
# ("not black, brown or navy"): "not black, brown" wants brown.
STRONG = _phrases("""no|without|w / o|except|except for|excluding|excl|minus|avoid|hate|never|non|sans|ohne|kein|keine|keinen|
    keiner|keines|ausser|sin|senza|exclude|apart from|neither|nor|nothing in|nothing with|nothing from|nothing by|none in|
    nothing made of|nothing made from|anything but|everything but|no more|weder|ni|sauf|hormis|excepte|tranne|eccetto|
    salvo|excepto|aucun|aucune|ningun|ninguna|nessun|nessuna|niente|allergic to|free of|free from""")
WEAK = _phrases("""not|dislike|not suitable for|not made for|not meant for|nicht|pas|pas de|other than|rather than|instead of|statt|i dont like|i dont want|dont want|dont
    like|dont need|do not want|do not like|not looking for|not in|not from|not by|dont show me|dont show|isnt|arent|wasnt|
    doesnt have|does not have|shouldnt be|shouldnt have|cant be|cant have|mustnt be|wont wear|dont wear|cant wear|
    cannot wear|cannot be|cannot have|cant stand|cannot stand|wouldnt want|would not want|wouldnt wear""")
NEGATIONS = tuple(sorted((*STRONG, *WEAK), key=lambda one: -len(one)))
# What a negation may reach past to its value: "not for men", "not with leather", "boots not: black".
REACH = set("- : of for fur pour with mit avec".split())
TOO = set("too very so that really zu sehr allzu trop si muy tan demasiado troppo".split())
# What is no negation of a product: "no idea", "can not find", "not sure".
NO_PRODUCT = set("problem idea thanks thank rush worries doubt find know see think sure necessarily hesitate want".split())
# What takes back a value that stands before it: "black is not for me".
SPURNED = _phrases("""is not for me|isnt for me|are not for me|arent for me|is not ok|isnt ok|not ok|is not okay|is not good|
    is not my thing|isnt my thing|is not my colour|is not my color|isnt my colour|isnt my color|doesnt suit me|
    does not suit me|dont suit me|do not suit me|is out|is a no|is a no go|not please""")
# Words that end the reach of a negation, and those that carry it on to the next value.
ENDS = set("but with however rather for under below over above mit aber , ; . ! ? :".split())
ALSO = set("or and nor oder und ou et o y e ni noch / &".split())
# What takes a part of earlier wishes back: "any colour is fine", "never mind the price".
ANY = _phrases("""any|whatever|whichever|every|forget|forget about|never mind|nevermind|no matter|regardless of|
    i dont care about|dont care about|do not care about|dont mind|do not mind|ignore|egal|drop""")
# Of those, what may take back a value, too: "forget the boots".
FORGET = _phrases("forget|forget about|never mind|nevermind|ignore|drop")
NO_MATTER = _phrases("""doesnt matter|does not matter|isnt important|is not important|dont matter|do not matter|is no issue|
    is not an issue|is no object|ist egal|spielt keine rolle""")
PARTS = {
    "price": "price", "prices": "price", "budget": "price", "money": "price", "cost": "price", "preis": "price",
    "colour": "color", "color": "color", "colours": "color", "colors": "color", "farbe": "color", "brand": "brand",
    "brands": "brand", "marke": "brand", "maker": "brand", "size": "size", "sizes": "size", "grosse": "size",
    "material": "material", "materials": "material", "fabric": "material", "category": "category", "kind": "category",
    "type": "category", "occasion": "soft", "season": "soft", "department": "department", "gender": "department",
}
# Bounds: words before a number, after it, and what a number is not a price with.
MOST = _phrases("""under|below|less than|cheaper than|no more than|not more than|at most|up to|nothing over|nothing above|
    nothing more than|nothing dearer than|max|maximum|max of|maximum of|not over|not above|within|budget|budget of|
    budget is|<|< =|<=|≤|unter|bis|bis zu|hochstens|weniger als|maximal|moins de|jusqua|menos de|meno di|hasta|fino a|
    sotto|no higher than|dont go over|not exceeding|less than or equal to""")
LEAST = _phrases("""over|above|more than|at least|from|min|minimum|minimum of|starting at|upwards of|nothing under|
    nothing below|nothing less than|nothing cheaper than|not under|not below|no less than|not less than|>|> =|>=|≥|uber|
    ab|mindestens|mehr als|plus de|au moins|mas de|piu di|dearer than|pricier than""")
NEARLY = tuple((one,) for one in "around about approximately approx roughly circa ca ~ near environ etwa ungefahr".split())
BETWEEN = set("between zwischen entre tra fra".split())
MOST_AFTER = _phrases("or less|or under|or below|or cheaper|and under|and below|max|maximum|tops|at most|oder weniger")
LEAST_AFTER = _phrases("or more|or above|or over|and up|and above|and over|minimum|min|upwards")
# Numbers as words: "under fifty", "a hundred and twenty".
NUMBERS = {
    "ten": 10, "fifteen": 15, "twenty": 20, "thirty": 30, "forty": 40, "fifty": 50, "sixty": 60, "seventy": 70,
    "eighty": 80, "ninety": 90, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9,
    "one": 1, "a": 1, "zehn": 10, "zwanzig": 20, "dreissig": 30, "vierzig": 40, "funfzig": 50, "sechzig": 60,
    "siebzig": 70, "achtzig": 80, "neunzig": 90, "vingt": 20, "trente": 30, "quarante": 40, "cinquante": 50,
    "soixante": 60,
}
TIMES = {"hundred": 100, "hundert": 100, "cent": 100, "thousand": 1000, "tausend": 1000, "mille": 1000}
CURRENCY = set("€ $ £ eur euro euros usd dollar dollars gbp pound pounds bucks quid chf francs".split())
UNITS = set("""cm mm m inch inches kg g mg ml l oz gb mb tb percent % hours hour days years year months w watt watts pack
    pieces pcs den pockets pocket stars star buttons items pairs colours colors sizes minutes minute seconds weeks week km
    miles mile metres meters people persons times inches litres liters layers""".split())
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
DEAR = set("""expensive pricey dear costly teuer teure teuren teures teurer cher chere chers cheres caro cara caros caras
    cari care costoso costosa costosi""".split())
# Words that say nothing of a product. Never read as a misspelt value.
SMALL = set("""a an the some any of to in on at by with and or for from as am is are be it its this that these those i im id
    ive me my mine we our us you your he she they them who what which where when would like want wants wanted need needs
    looking look search searching find show give get got buy buying please thanks thank hi hello hey can could should may
    might do does have has had just only also too very really quite something anything things thing stuff one ones pair
    pairs item items product products piece pieces kind sort type good nice great best new latest recommend suggest
    recommendation suggestions help more most less least than then so but if there here about color colour colors colours size
    sizes price priced brand brands made make out up down off into pay wear wearing ein eine einen einem einer der die das den
    dem des und oder fur ich suche mochte bitte mit in aus von zu im un une des les le la de du et ou pour je cherche el los
    las una unos y o para con busco il lo gli i per con cerco e goes go going cost costs costing style styles match matching
    preferably ideally maybe perhaps noch en por sur i let lets see know think could id youve theres sth smth everything nothing else actually make same limit us euro euros eur usd dollars
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
    pale lose body lather till stain winner loser dinner paper able ably acid aged also area army away baby ball base bath
    bear beat been beer bend best bike bill bird bite blow bold bolt bomb bond book born both bowl bulk burn bush busy cafe
    cage cake call calm came camp cart case cash cast cave cell chat chip city club coal code coin come cook copy core corn
    crew crop cube curl cute dark data dawn days deck deer desk dial dice diet dirt dish disk dive dock does doll door dose
    drag draw drop drum duck dusk duty each earn ease east easy edge else even ever exit face fact fade fair fake fall fame
    farm fast fate fear feed file fill film fire firm fish fist five flag flow fold folk fork form fort four from fuel full
    fund gain game gang gate gave gear girl give glad goal grab gray grew grid grip grow half hall hang hate have hawk heat
    held help herb here hero hide high hint hire hole holy home hook hope hour huge hung hunt hurt idea inch iron item jail
    join joke jump jury keen keep kept kick kiss kite knee knew knot know lady lake lamp last late lawn lazy leaf lean left
    legs lens life link lion list live load loan lock logo look loop loud luck made mail main make male mark mask meal mean
    meat meet menu mild mile milk mine mint miss mode moss move much must name navy near neat need news next nice nine node
    noise nose note oath once only onto open oval over pace page paid pain pair palm park part pass past path peel pine pipe
    play plot plug poem poet pole poll pool poor port pose pour pray pull pump pure push race rack rail rank rare rate rear
    rely rent rice rich ride rise risk role roll roof rope rose ruby rude rule rush safe said sail salt same save scar seat
    seed seek seen self sell send sent shed shoe shop shot show shut side sign silk site size skin slow snap soap soil sold
    sole solo some sort soul soup spin spot star stay stem step stop such suit sure swim tail take tale talk tank tape task
    taxi tear tell tend tent term text than that them then they this thus tide tied tile time tiny tool torn tour trap tray
    trip tube tune turn twin type unit upon used user vast very view vote wage wait wake walk wall want wash wave ways wear
    went were what when whip whom wide wife wild wipe wire wise wish with wolf wrap yard year zero zone about above actor
    admit adult after again agent agree ahead alarm album alert alike alive allow alone along alter angel anger angle angry
    ankle apart apple apply arena argue arise aside asset audio avoid award aware badly baker basis beard beast begin being
    birth blade blame blast blend bless blind block blood bloom bonus boost booth bound brain brand brave brief bring bring
    build built buyer cabin candy cargo carry catch cause chain chair chalk charm chart chase check chess chest chief child
    choir chose civil claim clean clear clerk clock close cloth cloud count court crack craft crash crazy crime crowd cycle
    daily dairy dance death debut delay depth devil diary doubt dozen draft drama drawn drink drive eager early eight elite
    empty enemy enjoy enter entry equal error event every exact exist extra faith false fancy fault fence fever fiber field
    fifth fifty fight final first flame flash fleet float floor flour fluid focus force forth forty forum found frame fresh
    front frost fully funny giant given globe grade grain grand grant graph grave guess guest guide habit happy harsh heavy
    hence hotel human ideal image index inner input issue jewel joint judge juice knife knock known label labor large laser
    later laugh layer learn lease least leave legal lemon level limit liver lobby local logic loose lower loyal lucky lunch
    major maker march marry mayor media mercy merit metal meter might minor minus mixed model money month moral motor mount
    movie needs nerve never newly ninth noble noise north noted novel ocean offer often olive onion opera orbit order organ
    other ought outer owner paint panic party patch pause phase phone photo piano piece pilot pitch pizza plant plaza point
    porch pound power press price pride prime prior prize proof proud prove queen query quick quiet radio raise range rapid
    ratio ready realm rebel refer reply rider ridge rifle rival robot rough round route royal rural salad sauce scale scene
    scope score sense serve seven shade shake shall shame sheet shelf shell shift shine shock shoot shown sight since sixth
    sixty skate skill small smell smile smoke solar solid solve sorry sound spare spark spend spice spite split spoke spoon
    staff stage stake stand state stays steal stick stock stood storm strip stuck study stuff sugar sweet swing sword table
    taken taste teeth thank their theme there these thing think third those three throw thumb ticket title today token total
    touch tough tower trace track trade trail trend trial tribe trick tried troop truck truly trunk truth tutor twice uncle
    under union unity until upper upset urban usage usual valid value video virus visit vital voice waste watch weigh weird
    whale wheel where which while whole whose woman works world worry worse worst worth would wound wrong young youth
    like likes love loves people person woman women friend friends family mother father sister brother daughter""".split())

# Values of a shop's own attributes that people also say in praise: they rank, and are not what comes first.
PRAISE = set("""fine classic bold modern basic special premium original smart elegant timeless unique simple stylish trendy
    perfect beautiful lovely lovelier popular favourite favorite fresh pure standard regular normal great new""".split())
# Values that name nothing.
NO_VALUES = set("""yes no true false y n none other others unknown na nein ja oui si various misc miscellaneous default
    unspecified undefined null nan""".split()) | {"n a", "not applicable", "not specified"}

CHEAP = set("""cheap cheapest cheaply affordable inexpensive bargain economical gunstig gunstige gunstigen gunstiges billig
    billige billigen billiges preiswert barato barata baratos baratas economico economica""".split())
