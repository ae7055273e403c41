"""What shops call their columns: the usual names of each of ours, those of personal data, what looks like a time or an
action.

It knows names and looks of values alone; `store/ingest/detect.py` decides with them what a file's columns are.
"""

from __future__ import annotations

import re
import unicodedata

# The best name first. Compared without case, spaces, signs and accents; a dotted name of JSON whole and by its end.
NAMES: dict[str, tuple[str, ...]] = {
    "user_id": tuple(
        """
        user_id customer_id client_id visitor_id member_id shopper_id buyer_id account_id reviewer_id
        profile_id person_id consumer_id user_pseudo_id distinct_id domain_userid network_userid anonymous_id full_visitor_id user customer client
        visitor member shopper buyer uid cust_id customer_number customer_no customer_code customer_key
        user_key household_key kunden_id kundennummer kundennr kunde id_client client_code cliente_id
        cliente id_cliente n°_client numéro_client code_client klient id_klienta numer_klienta müşteri
        müşteri_no müşteri_id
        codice_cliente klantnummer 顧客ID 顧客番号 会員ID 会員番号 user_name customer_email user_email email_address email e_mail
        """.split()
    ),
    "session_id": tuple(
        "session_id user_session session visit_id sid ga_session_id visit_number cookie_id device_id".split()
    ),
    "item_id": tuple(
        """
        item_id product_id sku_id article_id sku stock_code product_code item_code article_number article_no
        product_sku item_sku lineitem_sku line_item_sku variant_sku parent_asin asin content_id movie_id
        book_id track_id news_id object_id goods_id aid variant_id product_number product_key item_number item
        article product produkt_id artikelnummer artikelnr artikel_id artikel id_producto producto_id codigo
        reference ref_produit référence_produit kod_produktu indeks_produktu ürün_kodu urun_kodu stok_kodu ürün_no
        codice_articolo codice_prodotto código_producto código_produto artikelcode 商品コード 商品ID 商品番号 品番 upc gtin
        ean isbn barcode handle
        """.split()
    ),
    "ts": tuple(
        """
        ts timestamp event_timestamp event_time event_date time datetime date_time date created_at
        order_date order_time ordered_at invoice_date purchase_date purchase_time transaction_date
        transaction_time unix_timestamp unix_time unix_review_time review_time t_dat time_stamp occurred_at derived_tstamp collector_tstamp
        server_time client_timestamp original_timestamp sent_at received_at processed_at paid_at created day
        datum zeit zeitstempel bestelldatum fecha fecha_pedido date_commande date_de_commande data_zamówienia
        sipariş_tarihi tarih data_ordine data_pedido besteldatum 注文日 注文日時 購入日 購入日時 日時 日付 date_created
        created_date creation_date
        visit_time click_time at when
        """.split()
    ),
    "action": tuple(
        """
        action event_type event_name event action_type action_name behavior behavior_type behaviour
        interaction interaction_type activity event_action user_action type aktion ereignis
        """.split()
    ),
    "query": tuple(
        """
        query search_query search_term search_phrase search_string search_text search_keyword keyword
        keywords user_query query_text suchbegriff suche search q
        """.split()
    ),
    "position": tuple("position rank ordinal pos item_position result_position list_position".split()),
    "quantity": tuple(
        """
        quantity qty units item_quantity order_quantity lineitem_quantity menge anzahl cantidad quantite ilość
        liczba_sztuk adet miktar
        quantità quantidade aantal 数量 purchased_quantity
        """.split()
    ),
    "title": tuple(
        """
        title product_title item_title product_name item_name name prod_name product article_name
        movie_title lineitem_name label bezeichnung artikelbezeichnung produktname artikelname titel nombre
        nom titulo designation libellé nom_produit nom_du_produit nazwa nazwa_produktu nazwa_towaru ürün_adı urun_adi
        nome nome_prodotto nome_do_produto productnaam 商品名 製品名 品名 product_description description text
        """.split()
    ),
    "category": tuple(
        """
        category product_category category_name product_type product_type_name item_category categories
        category_code category_path google_product_category department main_category genre genres class
        kategorie warengruppe categoria categorie rayon kategoria kategori カテゴリ カテゴリー 商品カテゴリ category_l1 type
        item_category2 category_id
        """.split()
    ),
    "brand": tuple(
        """
        brand brand_name item_brand product_brand vendor manufacturer marke hersteller marca marque fabricant
        producent marka merk ブランド メーカー maker
        label_name brands
        """.split()
    ),
    "color": tuple("color colour color_name colour_name colour_group_name item_color farbe couleur kolor renk colore kleur カラー 色".split()),
    "size": tuple("size size_name item_size groesse grosse taille talla rozmiar beden taglia maat サイズ".split()),
    "price": tuple(
        """
        price unit_price product_price item_price price_usd variant_price regular_price list_price
        current_price price_per_unit purchase_price_per_unit lineitem_price preis einzelpreis stueckpreis
        precio prix prix_ttc prix_unitaire prix_unitaire_ttc prix_de_vente cena cena_brutto cena_sprzedaży fiyat fiyatı
        satış_fiyatı prezzo preço prijs 価格 販売価格 税込価格 単価 sale_price
        """.split()
    ),
    "description": tuple(
        """
        description product_description item_description long_description body_html detail_desc
        full_description short_description beschreibung langtext abstract overview summary descripcion opis
        açıklama descrizione descrição omschrijving 商品説明 説明 desc
        """.split()
    ),
    "attributes": ("attributes",),
    "parent_id": tuple(
        """
        parent_id item_group_id group_id product_group_id parent_sku parent_asin style_id model_id parent
        product_handle spu spu_id
        """.split()
    ),
    "first_seen": tuple(
        """
        first_seen creation_timestamp created_at created_on release_date released_at launch_date
        published_at date_added added_at available_date
        """.split()
    ),
    "in_stock": tuple(
        """
        in_stock availability available stock_status is_available is_in_stock stock inventory
        inventory_quantity stock_quantity quantity_in_stock qty_in_stock quantity qty lagerbestand bestand verfuegbarkeit
        verfugbarkeit disponible disponibilité disponibilidad disponibilità disponibilidade dostępność stan_magazynowy
        stok stok_durumu stok_adedi voorraad lagermenge 在庫 在庫数 在庫状況
        """.split()
    ),
}
ORDER = frozenset(
    """
        orderid order ordernumber orderno invoiceno invoiceid invoice invoicenumber transactionid
        transaction basketid receiptid receiptnumber purchaseid bestellnummer bestellung checkoutid
        ordername cartid basket rechnungsnummer ncommande numerocommande numerodecommande numerzamowienia
        nrzamowienia siparisno siparisnumarasi numeropedido numeroordine 注文番号 注文id
        """.split()
)
RATING = frozenset("rating ratings stars score overall reviewscore".split())
_PERSONAL = re.compile(  # not a gender or an age: those of a product are for whom it is made
    r"""e?mail(?!ing)|phone|telefon|mobilenumber|address|adresse|street$|strasse$|zipcode|postalcode|postcode|plz$|
    birthda|geburtsdatum|^ip$|ipaddress|firstname|lastname|surname|vorname|nachname|fullname|customer|username|
    clientname|contactname|buyername|billing|kunde|creditcard|iban$|vatid|useragent|password|latitude|longitude|
    nomclient|nomduclient|klienta?$|muesteri|cliente|indirizzo|telefono|adres$|^ad[ıi]?soyad|顧客|会員|氏名|住所|電話""",
    re.VERBOSE,
)
_EVENT_ONLY = ("user_id", "session_id", "quantity", "query", "position")
_ACTION = re.compile(
    r"view|click|cart|purchase|order|buy|bought|\bpv\b|fav|search|impression|transaction|checkout|basket|wish|sale|detail|kauf",
    re.I,
)
_TIME = re.compile(
    r"""\d{4}[-/.]\d{1,2}[-/.]\d{1,2}([T ].*)? | \d{1,2}[-/.]\d{1,2}[-/.]\d{2,4}([T ,].*)? | (19|20)\d{6}(\d{4,6})?
    | \d{9,10}(\.\d+)? | \d{13} | \d{16} | \d(\.\d+)?e\+?(9|09|8|08|12) | [3-6]\d{4}(\.\d+)?
    | .*\b(jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec|mai|okt|dez)[a-z.]*\b.*\d{2,4}.*""",
    re.VERBOSE | re.IGNORECASE,
)


def plain_name(name: str) -> str:
    """A column's name without case, accents, spaces and signs: "Customer ID" and customer_id are one."""
    text = name.casefold().replace("ß", "ss").replace("ä", "ae").replace("ö", "oe").replace("ü", "ue")
    text = unicodedata.normalize("NFKD", re.sub(r"\[[^]]*\]|\([^)]*\)", "", text) or text)
    return "".join(letter for letter in text if letter.isalnum())


_RANKS = {
    column: {plain_name(name): rank for rank, name in reversed(list(enumerate(names)))}
    for column, names in NAMES.items()
}
KNOWN = (
    frozenset(name for ranks in _RANKS.values() for name in ranks)
    | ORDER
    | RATING
    | {"id", "url", "link", "image", "currency", "country"}
)


def rank(column: str, name: str) -> int | None:
    """How good a name is for one of our columns, 0 for the best; None where it is not one. A dotted name's end
    counts, but less than a whole name."""
    ranks = _RANKS[column]
    last = 1000 if "mail" in plain_name(name) else 0  # an address tells people apart only where nothing else does
    if (whole := ranks.get(plain_name(name))) is not None:
        return whole + last
    if "." not in name:
        return None
    parts = [plain_name(part) for part in name.split(".")]
    joined = parts[-2].removesuffix("s") + parts[-1]  # items.id is an item's id, object.id an object's
    found = ranks.get(joined, ranks.get(parts[-1]))
    return None if found is None else found + 100 + last


def is_personal(name: str) -> bool:
    """Whether a column says something of a person: it never becomes a product's attribute by itself."""
    return bool(_PERSONAL.search(plain_name(name)))


def is_of_events(name: str) -> bool:
    """Whether a column tells of an order or a visit rather than of a product."""
    return plain_name(name) in ORDER or any(rank(column, name) is not None for column in _EVENT_ONLY)


def looks_like_time(value: str) -> bool:
    return bool(_TIME.fullmatch(value.strip()))


def looks_like_action(value: str) -> bool:
    return bool(_ACTION.search(value.replace("_", " ")))
