"""Abbreviations and other small word lists of the rule-based segmenter, by ISO 639-1 code.

Written by hand from general knowledge of the languages. How the lists are used is in ``rules``.

``NEVER``: a full stop after one of these never ends a sentence (titles, "e.g."). ``NUMBER``: nor before a number
("No. 5", "S. 12"). ``MAYBE``: it ends a sentence only if a capital follows ("etc."). Words are in lower case without
the last full stop. ``MONTHS`` keep "3. Oktober" together where months have capitals. ``STARTERS`` are words that, with
a capital, begin a sentence rather than a name, so that "in the U.S. The" is cut.
"""

from __future__ import annotations

NEVER: dict[str, str] = {
    "": "dr mr mrs ms prof st jr sr vs cf e.g i.e eg ie ph.d d.c viz approx ca col gen lt sgt capt rev hon ed "
    "eds p.s p.p.s phil drs",
    "en": "messrs mmes mx gov sen reps sens pres supt cpl pvt lieut lt.col maj brig cmdr adm ft mt ste fr bros "
    "dept univ assn attn gen dist asst esp incl resp est ext fwd lat lit trans tel approx a.k.a aka orig "
    "blvd rd hwy pl sq op cit ibid et ps dom vers mon tue tues wed thu thur thurs fri viz c.f w/o ver "
    "capt hon ald rt msgr",
    "de": "hr hrn fr frl dipl ing med jur rer nat phil habil priv doz bzw bspw ca evtl ggf inkl exkl insb "
    "insbes sog sogen vgl zzgl abzgl z.b z zb d.h d dh u.a u.u o.ä o.g i.d.r i.a u o m.e z.t z.zt z.hd "
    "gem lt bd bde hg hrsg jh jg kap kl mind mio mrd tsd mwst nachf nördl südl östl westl österr schweiz "
    "dt engl franz griech ital russ span türk amerik ehem eigtl einschl entspr erg event ff geb gest gegr "
    "ges geschr kath ev lfd pers röm sel städt stellv tägl teilw telef ungef urspr usf verh verw vorm "
    "wiss zus zw abs anm aufl ausg beil bes bez bl bsp chr darst dgl ebd eidg einh gebr skr hl jr sen "
    "prof dr mr mrs mo di mi do sa so",
    "nl": "dhr mevr mw mej drs ir ing mr ds prof bijv bv b.v d.w.z dwz d.m.v i.v.m o.a m.b.t m.n m.a.w n.a.v "
    "o.l.v t.a.v t.o.v t/m jl ca blz evt excl incl enz geb max min nl resp vgl zgn z.g zg vnl nr gem ong "
    "kath prot st",
    "sv": "bl.a t.ex t.o.m fr.o.m d.v.s dvs ca f.d f.n kap kl m.fl max min mr nr nuv obs resp s.k st tel t.h "
    "vol äv doc ev exkl inkl jfr ung u.a enl fil ing prof dr t ex bl",
    "da": "bl.a bl f.eks eks ca dvs d.v.s evt f.d f.kr e.kr fr hr hhv inkl ekskl jf jfr kap kl m.a.o m.h.t max "
    "mia mill mio nr nuv pga p.g.a p.t pt pr resp sml s.k skt st str tlf t.o.m vedr vha v.h.a cand jur "
    "stud phil prof dr ing cyl afd div ang p",
    "nb": "bl.a f.eks ca dvs d.v.s evt f.kr e.kr fr hr hhv inkl ekskl jf jfr kap kl m.a.o m.h.t maks mrd mill "
    "nr pga p.g.a p.t pr resp s.k st tlf t.o.m vedr cand prof dr ing ad adm avd bl el eks t",
    "fi": "esim eli ns mm ts ks vrt ym lk n s k noin tri toht fil prof dos maist tms nk os puh em ko kts lat "
    "ven ukr engl saks ruots ransk ital kreik jne huom par mr mrs dr klo st synt kuol milj mrd mlj per "
    "sit arv alk muin hepr arab yht eaa kirj toim suom nro",
    "is": "þ.e t.d m.a s.s t.a.m ca dr fr hr nr kl bls sbr skv u.þ.b þ.á.m",
    "et": "nt st s.t jt lk nr ca dr prof hr pr sh s.h so sm ins akad u",
    "lv": "piem t.i t.s utt u.c dr prof hab inž plkst lpp nr ielu st gs dz milj mljrd",
    "lt": "pvz t.y t.p t.t dr prof habil doc inž g pr gyv vyr kun plg žr t st nr mln mlrd tūkst sav apskr akad "
    "min dab lot angl rus vok vad pan red dail t.n",
    "pl": "dr prof mgr inż hab doc lic płk gen kpt por mjr sierż ppłk kard ks bp abp o św im ul al pl os np "
    "m.in tzn tzw tj wg ok zob godz nr ust art poz par rozdz str zł ang niem łac fr ros wł gr pt ur zm ob "
    "woj pow gm jw ww cd dot ds fiz red tel tys mln mld z uwagi inst n.e proj asp",
    "cs": "např tj tzv tzn resp popř apod atd mj př odst čl č čís dr prof doc ing mgr mudr judr phdr rndr bc "
    "csc ph sv gen plk kpt por nám ul tř str obr tab kap roč srov zn lat angl něm fr řec čes vyd kol max "
    "min cca tel st mil pí p n.l př.n.l arch akad hl odb event vč zvl vl",
    "sk": "napr tj tzv t.j t.z tzn resp popr atď mj č čl ods dr prof doc ing mgr mudr judr phdr rndr bc sv gen "
    "plk kpt por nám ul str obr tab kap pozri lat angl nem fr gréc cca tel st hl p akad max min arch",
    "sl": "npr oz t.i ti tj t.j dr prof doc ing dipl ga g gdč sv št čl odst str ul roj umr itd itn ok pribl lat "
    "angl nem akad univ min maks sl ang tim im tel",
    "hr": "npr tj tzv tzn dr prof doc mr ing dipl sv br čl st str ul god rođ um lat engl njem tal franc akad "
    "gđa gosp g itd odn usp v vidi prim kbr tel",
    "bs": "npr tj tzv dr prof doc mr ing dipl sv br čl st str ul rođ um lat engl njem akad gđa gosp odn tel",
    "sr": "npr tj tzv dr prof doc mr ing dipl sv br čl st str ul rođ um lat engl nem akad odn нпр тј тзв др "
    "проф доц мр маг инж дипл св бр чл ст стр ул рођ ум лат енгл нем акад одн итд г",
    "hu": "pl dr prof ifj özv id ún kb ill vö ld stb szt gr br főig ig mb okl st min max nyug lat ang ném fr "
    "olasz szül megh bek tel u kft pol em hrsz vmint mill",
    "ro": "d-l dl d-na dna dr prof ing arh av conf lect sf str nr bd bl ap et sc jud mun com art alin lit pct "
    "op cit p.ex ex de cca aprox î.hr d.hr gen col lt cpt mr pr sec vol pag tel acad",
    "fr": "m mm mme mlle dr pr me st ste mgr prof cf p.ex ex env av bd boul fg éd éds coll fig vol chap art al "
    "ap j.-c n° c.-à-d c.a.d tél réf resp adj gén col lt ing inéd ibid id op cit trad dir prés vs",
    "es": "sr sra srta sres sras dr dra dres dras d dª dña prof profa lic ing arq gral cnel tte cap av avda c "
    "pza ctra núm num pág págs art arts ej p.ej p.e a.c d.c ee uu ee.uu ss ud uds vd vds aprox máx mín "
    "tel telf fig vol ed eds fdo gob pdte excmo ilmo rvdo sto sta fr mons hnos dpto depto adm e.g i.e",
    "ca": "sr sra srta dr dra prof lic ing arq gral av avda c pl ctra núm pàg art ex p.ex a.c d.c st sta mn "
    "aprox màx mín tel fig cap vol ed eds c/ dept excm il·lm",
    "pt": "sr sra srta srs sras dr dra drs profª prof profa eng arq d dª av al pç trav nº núm pág págs art arts "
    "ex p.ex a.c d.c v.exa s.exa exmo exma ilmo sto sta gen cel cap ten maj sgt aprox máx mín tel fig vol "
    "ed eds dep pres gov sen rev pe ir cia ltda s.a lic",
    "gl": "sr sra srta dr dra prof av núm páx art ex p.ex a.c d.c sto sta tel fig vol ed",
    "it": "sig sigg sig.ra sigra dott dott.ssa prof prof.ssa ing avv arch geom rag on sen gen col cap ten magg "
    "mons don s ss v p.es es ecc fig figg pag pagg art artt vol n nn tel via cfr a.c d.c ca ed eds min "
    "max s.p.a s.r.l lgs c.d op cit jr st",
    "eu": "adib esaterako dr jn and k.a k.o or zk etab eab ik bol",
    "tr": "dr prof doç yrd av arş gör öğr üyesi müh mim alb yb bnb yzb ütğm gen tuğg örn bkz vb vs vd yy m.ö "
    "m.s i.ö i.s cad sok mah nu tel sn st mr mrs s çev yay haz ed ank ist osm far fr ing yun krş a.g.e "
    "a.g.m bk",
    "az": "dr prof dos akad müh məs səh küç cən b.e.ə e.ə m.ö",
    "id": "dr drs dra prof ir hj h tn ny nn sdr sdri yth jl jln no hlm dll dsb dst dkk tgl thn a.n d.a u.p u.b "
    "s.d kh kol mayjen letjen brigjen jend st mr mrs kab kec prop prov ds gg tbk rp",
    "ms": "dr prof hj tn pn cik en ir jln no hlm dll dsb tel mr mrs dato dt ts",
    "tl": "dr dra g gng bb prof engr atty gob sen rep sta sto hal no blg",
    "vi": "ts ths gs pgs tp bs ks ls ths.bs gs.ts pgs.ts p q mr dr v.v st cn",
    "sq": "p.sh dr prof z znj zj sh nr f.q dmth etj ing",
    "mt": "dr prof eż p.eż eċċ nru",
    "ga": "an tuas dr uas lch iml uimh m.sh .i srl",
    "cy": "dr mr mrs st e.e h.y a.y.b ayyb rhif tud",
    "af": "mnr mev mej dr prof ds adv bv b.v d.w.s nl m.a.w bl nr asb o.a m.b.t i.p.v st",
    "lb": "dr här mme prof z.b d.h bzw nr ca st",
    "eo": "d-ro s-ro s-ino prof ekz t.e k.t.p ktp n-ro p",
    "sw": "dk bw bi prof mhe mh uk n.k k.m mf",
    "el": "κ κκ κα κ.κ δρ δρα καθ αγ βλ π.χ πχ δηλ λ.χ αρ αριθ σελ σ τηλ οδ λεωφ μ.χ ν.δ π.δ ν.π.δ.δ τ.κ χιλ "
    "εκατ δισ κεφ παρ εδ τόμ εκδ επιμ μτφ πρβλ υπ υποσ αντ συν κ.ά κτλ κλπ στρ ταξ συντ υποστρ σημ dr mr",
    "ru": "г гг им ул пл пр просп пер наб бул кв корп стр оф обл р-н пос с станц т.е т т.к т.н т.ч т.о напр см "
    "ср соотв др проф акад доц канд гл гр тов товарищ св преп митр архиеп еп о отд рис табл илл изд ред "
    "сост англ нем фр итал исп лат греч рус укр польск кит япон яп араб перс тур чел тел факс доб ок "
    "около урожд прим вкл зав зам пом инж нач полк ген майор кап лейт серж адм чл корр п пп п.п ч ст.ст "
    "стб вып сер кн гос макс мар и.о врио б бывш н.э до ж м эл букв совр устар разг т.наз р худ реж сцен "
    "муз комп гор нас бут эт тыс г-н г-жа к.м к.э p.s p.p.s дж",
    "uk": "ім вул пл пр просп пров наб буд кв корп обл р-н с смт м ст т.зв т т.д напр див пор проф акад доц "
    "канд гол гр тов св преп митр о від рис табл іл вид ред упоряд пер англ нім фр італ ісп лат грец рос "
    "укр пол кит яп араб тел бл близько нар пом урод прим зав заст нач полк ген чл кор п пп ч вип сер кн "
    "держ мін макс б кол ін н.е тис до т.ч т.е т.к т.п ц.р мал дж",
    "be": "ім вул пл пр пер наб д кв вобл р-н в г.зн т напр гл пар праф акад дац канд св прап рыс табл выд рэд "
    "укл англ ням фр іт лац грэч рус укр пол тэл каля нар пам заг нам нач палк ген чл кар п пп ч вып сер "
    "кн дзярж г",
    "bg": "г-н г-жа г-ца гл св проф доц акад инж арх д-р полк подп майор кап лейт серж ген ул бул пл ж.к бл вх "
    "ет кв гр с общ обл т.е т.нар т напр вж срв виж стр рис табл изд прев англ нем фр ит исп лат рус тел "
    "ок поч бел чл ал р в-к в септ т.г пр.н.е отг зам мин о.з",
    "mk": "г-дин г-ѓа проф доц акад инж д-р м-р ул бул св т.е т.н т.нар на.пр пр стр сл таб изд ред англ герм "
    "лат тел род поч чл бр",
    "kk": "т.б т.с.с т.ғ.д проф акад ж б.з.б",
    "hy": "պրոֆ ակադ դոկտ դոց տ ընկ պարոն քաղ մարզ գ գյ փող պող շ բն թիվ էջ հմմտ տես օր մ.թ.ա մ.թ սբ ս տկն թ թթ "
    "քառ մլն մլրդ հազ խմբ կազմ թարգմ հեռ կմ կգ ծնվ տող դ",
    "ka": "ბ-ნი ქ-ნი პროფ აკად დოც ე.წ ე.ი მაგ გვ იხ ქ ქუჩ გამზ წმ ძვ.წ ახ.წ ჩვ.წ ინგლ ლათ გერმ ფრანგ რუს ბერძ "
    "დაახ დაბ გარდ რედ ტომ გამომც შდრ ს.ს ა.შ.შ ბერძნ ესტ წწ იაპ ჩინ თურქ არაბ სპარს ესპ იტალ პოლ უკრ "
    "სომხ აზერბ დ",
    "he": "פרופ ד גב מר עמ",
    "ar": "د أ م ص ج ط ه أ.د ق.م ب.م هـ اف إف جي دي",
    "fa": "دکتر ر.ک ص ج ق.م ه.ش ه.ق آ",
    "ur": "ڈاکٹر پروفیسر مسٹر ص ج ق.م ایم اے بی سی ڈی ای ایف جی ایچ آئی جے کے ایل این او پی کیو آر ایس ٹی یو وی "
    "ڈبلیو ایکس وائی زیڈ",
    "hi": "डॉ डा श्री श्रीमती पं प्रो कु सं पृ ई.पू ई मि मो स्व न चौ कै ले ब्रि मे ए बी सी डी एफ जी एच आई जे के "
    "एल एम एन ओ पी क्यू आर एस टी यू वी डब्लू डब्ल्यू एक्स वाई वाय जेड फिल",
    "mr": "डॉ डा श्री श्रीमती पं प्रो कु सौ पृ इ.स इ.स.पू मि रा.रा स्व कै चि न म.म ना ले ए बी सी डी ई एफ जी एच "
    "आई जे के एल एम एन ओ पी क्यू आर एस टी यू वी डब्लू डब्ल्यू एक्स वाई वाय जेड फिल",
    "ne": "डा श्री श्रीमती पं प्रा पृ ई.पू वि.सं नं सु इ ए बी सी डी ई एफ जी एच आई जे के एल एम एन ओ पी क्यू आर "
    "एस टी यू वी डब्लू डब्ल्यू एक्स वाई वाय जेड फिल",
    "bn": "ড ডা ডাঃ মি মো মোঃ অধ্যা প্রফ খ্রি খ্রিঃ সা নং পৃ এ বি সি ডি ই এফ জি এইচ আই জে কে এল এম এন ও পি আর "
    "এস টি ইউ ভি ডব্লিউ ওয়াই জেড",
    "gu": "ડૉ ડો શ્રી પ્રો કુ સ્વ પૃ ઈ.સ નં એ બી સી ડી ઈ એફ જી એચ આઈ જે કે એલ એમ એન ઓ પી આર એસ ટી યુ વી વાય",
    "pa": "ਡਾ ਸ ਸ੍ਰੀ ਪ੍ਰੋ ਨੰ ਈ ਏ ਬੀ ਸੀ ਡੀ ਐਫ ਜੀ ਐਚ ਆਈ ਜੇ ਕੇ ਐਲ ਐਮ ਐਨ ਓ ਪੀ ਆਰ ਐਸ ਟੀ ਯੂ ਵੀ",
    "ta": "திரு டாக்டர் பேரா எம் எஸ் கே என் எல் ஆர் பி வி டி ஜி எச் ஏ இ ஐ ஜே கி.மு கி.பி தி.மு.க அ.தி.மு.க "
    "பா.ஜ.க ரூ செல்வி எண் தொ பி.ஏ எம்.ஏ எஃப் ஓ க்யூ யூ டபிள்யூ",
    "te": "డా డాక్టర్ శ్రీ ప్రొ క్రీ.శ క్రీ.పూ రూ నం ఎమ్ ఎస్ ఆర్ కె ఎన్ పి వి టి ఎ బి సి డి ఇ ఎఫ్ జి హెచ్ ఐ జె ఎల్ ఎం ఓ యు వై",
    "kn": "ಡಾ ಶ್ರೀ ಪ್ರೊ ಕ್ರಿ.ಶ ಕ್ರಿ.ಪೂ ರೂ ನಂ ಎಂ ಎಸ್ ಆರ್ ಕೆ ಎನ್ ಪಿ ವಿ ಎ ಬಿ ಸಿ ಡಿ ಇ ಎಫ್ ಜಿ ಎಚ್ ಐ ಜೆ ಎಲ್ ಓ ಟಿ ಯು ವೈ",
    "ml": "ഡോ ശ്രീ പ്രൊഫ ക്രി.മു എ.ഡി ബി.സി രൂ നം എം എസ് ആർ കെ എൻ പി വി എ ബി സി ഡി ഇ എഫ് ജി എച്ച് ഐ ജെ എൽ ഒ ടി യു",
    "si": "ආචාර්ය මහාචාර්ය ක්‍රි.ව ක්‍රි.පූ රු ඩී එම් එස් ඒ පී කේ ජේ",
    "am": "ዶ/ር ፕ/ር ዓ.ም ዓ እ.ኤ.አ ወ.ዘ.ተ ክ ቁ",
    "ti": "ዶ/ር ፕ/ር ዓ.ም ክ ቁ",
    "ko": "vs no mr dr b.c a.d",
    "ja": "mr mrs dr no vs vol co ltd st inc",
    "zh": "mr mrs dr no vs vol co ltd st inc",
    "yi": "ד״ר ה״ר פראָפֿ ז אד״ג",
    "bho": "ए बी सी डी ई एफ जी एच आई जे के एल एम एन ओ पी क्यू आर एस टी यू वी डब्लू डब्ल्यू एक्स वाई वाय जेड फिल",
    "mai": "ए बी सी डी ई एफ जी एच आई जे के एल एम एन ओ पी क्यू आर एस टी यू वी डब्लू डब्ल्यू एक्स वाई वाय जेड फिल",
    "awa": "ए बी सी डी ई एफ जी एच आई जे के एल एम एन ओ पी क्यू आर एस टी यू वी डब्लू डब्ल्यू एक्स वाई वाय जेड फिल",
    "mag": "ए बी सी डी ई एफ जी एच आई जे के एल एम एन ओ पी क्यू आर एस टी यू वी डब्लू डब्ल्यू एक्स वाई वाय जेड फिल",
    "hne": "ए बी सी डी ई एफ जी एच आई जे के एल एम एन ओ पी क्यू आर एस टी यू वी डब्लू डब्ल्यू एक्स वाई वाय जेड फिल",
}

NUMBER: dict[str, str] = {
    "": "no nr p pp vol fig figs art n § str tab chap sec eq",
    "en": "nos art sect ch v vv ver pt par para paras ex stat cl sch mar sat sun max min app jan feb mar apr "
    "jun jul aug sept sep oct nov dec rep reps",
    "de": "s nrn ziff art abb tab kap bl rn rdnr az tel rd us z mag jan feb mär apr jun jul aug sep sept okt "
    "nov dez std",
    "fr": "t pl liv f v apr janv févr avr juil sept oct nov déc cap nos",
    "es": "t n pág cap ley ene feb abr may jun jul ago sept oct nov dic",
    "pt": "t n cap lei jan fev mar abr mai jun jul ago set nov dez",
    "it": "t l d.l feb mar apr mag giu lug ago set ott nov dic",
    "nl": "blz art hfdst afb jan feb mrt apr jun jul aug sep sept okt nov dec",
    "id": "no ps ay hal",
    "ru": "№ ст гл п т тт кн д кв разд янв фев февр апр июн июл авг сен сент окт ноя нояб дек род ум мин д",
    "uk": "№ ст гл п т кн розд січ лют бер квіт трав черв лип серп верес жовт листоп груд",
    "bg": "№ чл т гл янв февр апр авг окт ноем дек ап",
    "tr": "s c m md no apt",
    "ar": "ص ج م",
    "sv": "jan feb mar apr jun jul aug sep sept okt nov dec",
    "da": "mag jan feb mar apr jun jul aug sep sept okt nov dec",
    "nb": "mag jan feb mar apr jun jul aug sep sept okt nov des",
    "et": "mag jaan veebr apr aug sept okt nov dets",
    "lv": "janv febr apr aug sept okt nov dec",
    "sl": "mag",
    "hr": "mag",
    "bs": "mag",
    "sr": "mag",
    "hu": "jan febr márc ápr jún júl aug szept okt nov dec",
    "ca": "gen febr abr jul ag set oct nov des",
    "el": "ιαν φεβρ μαρτ απρ ιουν ιουλ αυγ σεπτ οκτ νοε δεκ",
    "be": "студз лют сак крас чэрв ліп жн вер кастр ліст снеж",
    "pl": "pkt t",
}

MAYBE: dict[str, str] = {
    "": "etc inc ltd co corp jr sr a.m p.m al",
    "en": "llc bros plc est dept sq ave blvd rd hwy b.c a.d bc ad min max hrs hr yrs mins lbs oz ft dom",
    "de": "usw etc u.a.m u.v.m usf gmbh ag kg chr. co",
    "nl": "enz e.d e.a m.v n.v b.v",
    "sv": "osv o.s.v m.m m.fl o.d etc kr st milj mkr",
    "da": "osv o.s.v m.m m.fl m.v o.l etc kr stk a mv",
    "nb": "osv o.s.v m.m m.fl mv o.l etc kr stk",
    "fi": "jne ym yms tms eaa jaa jkr ekr yht v kpl puh",
    "et": "jne jt vms eks pkr ekr a kr tk",
    "lv": "utt u.c u.tml g st",
    "lt": "t.t ir kt pan m a lt ct val min",
    "pl": "itd itp r w zł gr n.e p.n.e tys mln mld godz min ds ww sp o.o a",
    "cs": "atd apod aj n.l s.r.o a.s kč hod min tis ph.d csc r l",
    "sk": "atď a.s s.r.o sk hod min tis phd csc r l",
    "sl": "itd itn ipd d.o.o d.d l n.š",
    "hr": "itd i.sl god d.o.o d.d g st kn",
    "bs": "itd i.sl god d.o.o g st km",
    "sr": "itd i.sl god d.o.o g итд и.сл год г д.о.о",
    "hu": "stb kft rt zrt nyrt bt sz u ft",
    "ro": "etc s.a s.r.l ș.a ş.a lei",
    "fr": "etc s.a cie h",
    "es": "etc s.a s.l cía pts ptas a.m p.m hab km uu",
    "ca": "etc s.a s.l cia",
    "pt": "etc s.a ltda cia jr hab",
    "it": "ecc etc s.p.a s.r.l spa srl",
    "tr": "vb vs vd yy a.ş ltd şti gr kg km cm tl ml sn dk sa t.a.ş",
    "id": "dll dsb dst dkk tbk s.h s.e m.m m.a m.si s.sos ph.d s.t m.sc",
    "vi": "v.v",
    "el": "κ.ά κτλ κ.λπ κλπ κ.λ.π μ.χ α.ε ε.π.ε ευρώ χλμ χμ δρχ π.μ μ.μ ε.α.μ ε.ε η.π.α",
    "ru": "др пр т.д т.п г гг в вв руб коп тыс млн млрд чел н.э м км см мм кг ц т га мин сек час проч л р долл ед экз",
    "uk": "ін т.д т.п р рр ст грн коп тис млн млрд н.е м км см мм кг га хв год сек чол прим",
    "be": "інш г.д т.п г гг ст руб тыс млн млрд н.э км",
    "bg": "др т.н г в лв ст хил млн млрд н.е км см м кг мин сек ч дол пр",
    "mk": "др г год в ден мил н.е км",
    "hy": "այլն դր մ.թ",
    "ka": "ა.შ სხვ",
    "sq": "etj lekë",
}

MONTHS: dict[str, str] = {
    "de": "januar jänner februar feber märz april mai juni juli august september oktober november dezember jan "
    "feb mär apr jun jul aug sep sept okt nov dez",
    "lb": "januar februar mäerz abrëll mee juni juli august september oktober november dezember",
    "tr": "ocak şubat mart nisan mayıs haziran temmuz ağustos eylül ekim kasım aralık",
}

STARTERS: dict[str, str] = {
    "en": "the a an this that these those he she it we they you i his her its our their your my there here in "
    "on at as for from with by to of and but or so if when while where what who why how which although "
    "though because since after before during however moreover furthermore therefore thus then now also "
    "some many most all each every no not is are was were do does did has have had can could will would "
    "should may might let please thank thanks yes one another other such until unless once both nor yet "
    "even only",
    "de": "der die das den dem des ein eine einer eines einem einen er sie es wir ihr ich man und aber oder "
    "doch denn wenn als da dann dort hier in im am an auf aus bei mit nach von vor zu zum zur für durch "
    "über unter um so auch nur noch schon dies diese dieser dieses diesem jedoch dabei damit daher "
    "deshalb außerdem nachdem während weil obwohl sein seine seiner ihre was wer wie wo warum alle kein "
    "keine nicht ist sind war waren hat haben",
    "fr": "le la les l un une des il elle ils elles on nous vous je ce cette ces c cet et mais ou donc or ni "
    "car si quand comme dans en à au aux de du par pour sur avec sans son sa ses leur leurs mon ma mes "
    "notre votre qui que quoi d j n s lors après avant depuis pendant ainsi alors cependant toutefois "
    "tout tous toute",
    "es": "el la los las lo un una unos unas él ella ellos yo nosotros este esta estos estas ese esa eso esto y "
    "pero o si cuando como en a al de del por para con sin sobre su sus mi no se es son fue era ha han "
    "hay que quien qué cómo según además también después antes desde entre tras durante así ya todo todos",
    "pt": "o a os as um uma ele ela eles elas eu nós este esta esse essa isso isto e mas ou se quando como em "
    "no na nos nas de do da dos das por para com sem sobre seu sua não é são foi era há que quem segundo "
    "além também depois antes desde entre após durante assim já todo todos ao à",
    "it": "il lo la i gli le l un uno una egli lui lei essi loro noi io questo questa questi quello quella e ma "
    "o se quando come in nel nella a al alla di del della dei da dal dalla per con su sul sulla tra fra "
    "non è sono era fu ha hanno che chi cosa secondo inoltre anche dopo prima durante così tutto tutti",
    "nl": "de het een hij zij ze wij we ik je u dit dat deze die en maar of als toen in op aan bij met na naar "
    "van voor te door over onder om zo ook nog er hier daar daarom echter volgens tijdens zijn haar hun "
    "wat wie waar hoe waarom alle geen niet is was",
    "ru": "в на и а но он она оно они мы я вы это этот эта эти тот та те так как когда если что кто где при по "
    "с со к ко о об от до из за для без у не ни все всё его её их после перед однако также затем поэтому "
    "потом тогда там здесь во",
    "uk": "в у на і й а але він вона воно вони ми я ви це цей ця ці той та ті так як коли якщо що хто де при по "
    "з із до від за для без про не усі все його її їх після перед однак також потім тому тоді там тут",
    "bg": "в във на и а но той тя то те ние аз вие това този тази тези така как когато ако че кой къде при по с "
    "със към от до из за без не ни всички след преди обаче също затова тогава там тук",
    "pl": "w we na i a ale on ona ono oni one my ja wy to ten ta te tak jak kiedy gdy jeśli że co kto gdzie "
    "przy po z ze do od za dla bez o nie po przed jednak także potem dlatego wtedy tam tu jest są był "
    "była było były jego jej ich",
    "id": "di ke dari pada dan tetapi namun ia dia mereka kami kita saya anda ini itu yang untuk dengan dalam "
    "jika ketika setelah sebelum sebagai karena oleh para ada hal selain menurut",
    "el": "ο η το οι τα του της των τον την ένας μια ένα και αλλά ή αν όταν όπως στο στη στην στον στις στους "
    "στα με από για σε δεν δε να θα ότι που ποιος πώς αυτός αυτή αυτό αυτοί αυτές αυτά επίσης ωστόσο μετά "
    "πριν κατά είναι ήταν",
    "tr": "bu şu o ben sen biz siz onlar bir ve ama fakat ancak eğer çünkü nasıl ne neden kim nerede için ile "
    "daha en çok sonra önce ayrıca böylece bunun bunlar her",
    "ro": "un o el ea ei ele noi eu voi acest această acestea și dar sau dacă când cum în la de din pe cu fără "
    "pentru nu este sunt era a au că care după înainte astfel",
}


def _set(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Languages in which a number with a full stop is an ordinal ("3. Oktober", "21. století").
ORDINAL_DOT = _set("de lb da nb nn fo is fi et lv cs sk sl hr bs sr hu tr az eu pl lt")
# Languages whose scripts have no capitals.
CASELESS = _set(
    "am ar as awa azb bho bn bo ckb dz fa gu he hi hne ja ka km kn ko ks lo mag mai ml mni mr my ne or pa ps sa sat sd "
    "shn si ta te th ti ug ur yi zh"
)
# Languages that set dialogue off with dashes or commas, so that "?" before a small letter need not end anything.
DASH_DIALOGUE = _set("be bg bs ca cs da el es et fi fr gl hr hu it lt lv mk nb nn pl pt ro ru sk sl sr sv uk vi")
# Company forms and the like, in MAYBE, that stand inside names: they end a sentence only before one of STARTERS.
IN_NAMES = _set("inc ltd co corp llc jr sr gmbh kg ag")
# Languages without lists of their own, written with the abbreviations of a larger neighbour.
_PAIRS = (
    "nn:nb ast:es oc:ca scn:it vec:it lmo:it fur:it lij:it sc:it szl:pl ltg:lv tt:ru ba:ru tg:ru ky:ru mn:ru crh:tr "
    "bho:hi mai:hi mag:hi awa:hi hne:hi sa:hi as:bn jv:id su:id min:id ban:id bjn:id ace:id bug:id ceb:tl ilo:tl "
    "pag:tl war:tl ps:fa sd:ur ug:ar ckb:ar"
)
AS_IN: dict[str, str] = dict(pair.split(":") for pair in _PAIRS.split())
